"""Asks a running processor on its web port, and reads its JSON answers."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import httpx

from otel_mlmon.errors import ConfigurationError, ProcessorError

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


def format_base(address: str) -> str:
    """Returns the address of a web port with its scheme and without a slash at its end."""
    return (address if "://" in address else f"http://{address}").rstrip("/")


def request_document(
    method: str,
    address: str,
    path: str,
    *,
    timeout_s: float,
    token: str = "",
    query: Mapping[str, Any] | None = None,
    body: Mapping[str, Any] | None = None,
    advice: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Sends one request, and returns the document of its answer.

    Args:
        method: `GET`, `POST` or `DELETE`.
        address: The web port, with or without `http://`, as the option `--url` of the command has it.
        path: The path of the request, quoted.
        timeout_s: How long each step of the request may take, above 0.
        token: The token of the processor's configuration; empty sends none.
        query: The parameters of the path.
        body: What is sent as JSON; None sends nothing.
        advice: What to do, by the reason for which the processor refuses.

    Raises:
        ConfigurationError: `address` is no address.
        ProcessorError: Nothing answers there, it is no processor, or it refuses; says why.
    """
    base = format_base(address)
    with connect(address, option="--url", timeout_s=timeout_s, token=token) as client:
        response = client.request(method, path, params=query, json=body)
    document = parse_json(response)
    if response.is_success and isinstance(document, dict):
        return document
    refusal = read_document(response, base)
    raise ProcessorError(f"{base}: {refusal['error']}{advice.get(str(refusal.get('reason', '')), '')}")


@contextmanager
def connect(
    address: str, *, option: str, timeout_s: float, token: str = "", trust: ssl.SSLContext | None = None
) -> Iterator[httpx.Client]:
    """Opens a client of a processor's web port; no redirect is followed.

    Args:
        address: The web port, with or without `http://`.
        option: The command's option that sets the address, for messages.
        timeout_s: How long each step of a request may take, above 0.
        token: Sent with every request; empty sends none.
        trust: Certificates of an https address that are trusted; None for those that the system trusts.

    Raises:
        ConfigurationError: `address` is no address.
        ProcessorError: Nothing answers there.
    """
    base = format_base(address)
    try:
        host = httpx.URL(base).host
        # A proxy of the environment is for the world outside, and would be asked for 127.0.0.1 too.
        with httpx.Client(
            base_url=base if host else "",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=timeout_s,
            trust_env=host not in LOOPBACK,
            verify=trust if trust is not None else True,
        ) as client:
            yield client
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ConfigurationError(f"{option}: {address!r} is no address of a web port: {error}") from error
    except httpx.HTTPError as error:
        cause = str(error) or type(error).__name__
        raise ProcessorError(
            f"{base}: no processor answers there: {cause}; give the address of one with {option}"
        ) from error


def trust_authority(path: Path) -> ssl.SSLContext:
    """Returns what trusts the certificates of one authority, for the names that they are made for.

    Raises:
        ConfigurationError: The PEM file cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"{path}: cannot be used as a certificate authority: {error}") from error


def trust_certificate(path: Path) -> ssl.SSLContext:
    """Returns what trusts this very certificate, under whatever name: that of a processor on this machine.

    Raises:
        ConfigurationError: The PEM file cannot be used.
    """
    context = trust_authority(path)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def read_document(response: httpx.Response, base: str) -> dict[str, Any]:
    """Reads an answer that is not success, `{"error": message, …}`.

    Raises:
        ProcessorError: It is none of a processor's.
    """
    document = parse_json(response)
    if not isinstance(document, dict) or not isinstance(document.get("error"), str):
        raise ProcessorError(f"{base}: answers {response.status_code}, and is no processor's web port")
    return document


def parse_json(response: httpx.Response) -> Any:
    """Returns the document of an answer; None if it is not JSON."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None
