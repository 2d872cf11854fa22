"""Finds contradictions between the keys of a configuration whose keys are all valid by themselves.

Equal ports, files that are missing, results that are sent to the processor itself, notifiers that reach nobody: the
processor would start and then fail, or do nothing, without a word at the place of the mistake.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

from pydantic import SecretStr

from otel_mlmon.processor.config.document import KeyPath
from otel_mlmon.processor.config.model import Config

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_ANY = ("0.0.0.0", "::")  # noqa: S104 (recognised, not listened on)


def find_inconsistencies(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yields each contradiction between the keys of a configuration: the key, and what is wrong with it."""
    yield from _find_equal_ports(config)
    yield from _find_missing_files(config)
    yield from _find_forward_loops(config)
    yield from _find_silent_notifiers(config)


def _find_equal_ports(config: Config) -> Iterator[tuple[KeyPath, str]]:
    seen: dict[KeyPath, tuple[str, int]] = {}
    for path, address in _list_listen_addresses(config):
        host, port = _split_address(address)
        for other_path, (other_host, other_port) in seen.items():
            is_same_host = host == other_host or host in _ANY or other_host in _ANY
            if port and port == other_port and is_same_host:
                yield path, f"is port {port}, as {'.'.join(map(str, other_path))} is: give each a port of its own"
        seen[path] = host, port


def _find_missing_files(config: Config) -> Iterator[tuple[KeyPath, str]]:
    files: list[tuple[KeyPath, object]] = [
        ((section, "tls", key), getattr(getattr(config, section).tls, key))
        for section in ("receiver", "web")
        for key in ("certificate", "key", "client_ca")
    ]
    files += [(("models", name, "reference", "file"), model.reference.file) for name, model in config.models.items()]
    for path, file in files:
        if file is not None and not os.access(str(file), os.R_OK):
            yield path, f"there is no file {str(file)!r} that can be read"
    directory = config.storage.path
    if directory.exists() and not directory.is_dir():
        yield ("storage", "path"), f"{str(directory)!r} is not a directory"


def _find_forward_loops(config: Config) -> Iterator[tuple[KeyPath, str]]:
    urls: list[tuple[KeyPath, str | SecretStr | None]] = [(("forward", "endpoint"), config.forward.endpoint)]
    for index, entry in enumerate(config.alerts.notify):
        path: KeyPath = ("alerts", "notify", index, entry.name)
        urls.append(((*path, "url"), getattr(entry.section, "url", None)))
        urls += [((*path, "urls", number), url) for number, url in enumerate(getattr(entry.section, "urls", ()))]
    for path, value in urls:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        host, port = _split_url(text or "")
        for own_path, address in _list_listen_addresses(config) if host else ():
            own_host, own_port = _split_address(address)
            is_own_host = host == own_host or (host in (*_LOOPBACK, *_ANY) and own_host in (*_LOOPBACK, *_ANY))
            if port == own_port and is_own_host:
                yield path, f"is {'.'.join(map(str, own_path))} of this processor itself"


def _find_silent_notifiers(config: Config) -> Iterator[tuple[KeyPath, str]]:
    names = [entry.name for entry in config.alerts.notify]
    if not names:
        yield ("alerts", "notify"), "names nobody: alerts would go nowhere; `[{log: {}}]` is the least"
    elif set(names) == {"otlp"} and config.forward.endpoint is None:
        yield ("alerts", "notify"), "is otlp alone, and forward.endpoint is not set: alerts would go nowhere"
    for index, entry in enumerate(config.alerts.notify):
        words = getattr(entry.section, "run", ())
        if words and shutil.which(words[0]) is None:
            path = ("alerts", "notify", index, entry.name, "run")
            yield path, f"there is no program {words[0]!r} that can be run: alerts would go nowhere"


def _list_listen_addresses(config: Config) -> list[tuple[KeyPath, str]]:
    addresses = [
        (("receiver", "grpc"), config.receiver.grpc),
        (("receiver", "http"), config.receiver.http),
        (("web", "listen"), config.web.listen),
    ]
    return [(path, address) for path, address in addresses if address is not None]


def _split_url(url: str) -> tuple[str, int]:
    """Returns the host and port of a URL; an empty host where the URL has none, as some of Apprise's have none."""
    parts, port = urlsplit(""), None
    with suppress(ValueError):
        parts = urlsplit(url)
        port = parts.port
    return parts.hostname or "", port or (443 if parts.scheme == "https" else 80)


def _split_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]").lower(), int(port)
