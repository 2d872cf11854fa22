"""The options by which every command reaches a running processor: its web port, a token, and certificates.

Each has an environment variable besides the address, so that the commands that alerts print work as they are printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from otel_mlmon.reference.web_port import WebPort

DEFAULT_ADDRESS: Final = "http://127.0.0.1:8080"
RESPONSE_TIMEOUT_S: Final = 30.0

CA_VARIABLE: Final = "OTEL_MLMON_CA"
CERTIFICATE_VARIABLE: Final = "OTEL_MLMON_CERT"
KEY_VARIABLE: Final = "OTEL_MLMON_KEY"


class AccessRole(NamedTuple):
    """Describes a role in which a command calls the processor, reader or administrator: where its token stands."""

    option: str
    """The key of the processor's configuration that has the token."""
    variable: str
    """The environment variable that has the token."""


READER: Final = AccessRole("web.read_token", "OTEL_MLMON_READ_TOKEN")
ADMINISTRATOR: Final = AccessRole("web.admin_token", "OTEL_MLMON_ADMIN_TOKEN")


def add_connection_arguments(
    parser: argparse.ArgumentParser, role: AccessRole, *, default_address: str | None = DEFAULT_ADDRESS
) -> None:
    """Declares the options by which a command reaches a running processor: `--url`, `--token`, certificates.

    Args:
        parser: The parser of the command.
        role: Who it speaks as.
        default_address: The address without `--url`; None for that of the configuration that the command reads.
    """
    port = "the processor's web port, `web.listen` of its configuration"
    default = "default: that of --config" if default_address is None else "default: %(default)s"
    parser.add_argument("--url", default=default_address, metavar="URL", help=f"{port} ({default})")
    or_config = "" if default_address is not None else ", or that of --config"
    parser.add_argument("--token", metavar="TOKEN", help=f"its `{role.option}` (default: {role.variable}{or_config})")
    parser.add_argument(
        "--ca", type=Path, metavar="FILE",
        help=f"the authority of its certificate in PEM, if it is private (default: {CA_VARIABLE}{or_config})",
    )  # fmt: skip
    parser.add_argument(
        "--cert", type=Path, metavar="FILE",
        help=f"your certificate in PEM, if it asks for one, `web.tls.client_ca` (default: {CERTIFICATE_VARIABLE})",
    )  # fmt: skip
    parser.add_argument(
        "--key", type=Path, metavar="FILE",
        help=f"the key of --cert, if it is not in the same file (default: {KEY_VARIABLE})",
    )  # fmt: skip


def read_connection(
    arguments: argparse.Namespace,
    role: AccessRole,
    environ: Mapping[str, str],
    *,
    address: str = "",
    server_certificate: Path | None = None,
) -> WebPort:
    """Returns the processor's web port as the command's options and the environment describe it.

    Args:
        arguments: What `add_connection_arguments` declares, parsed.
        role: Who the command speaks as.
        environ: The environment.
        address: Where it is without `--url`.
        server_certificate: The processor's own certificate, which is trusted without `--ca`.

    Raises:
        ConfigurationError: A file of certificates cannot be used.
    """
    from otel_mlmon.reference.web_port import WebPort, build_tls_trust

    token = environ.get(role.variable, "") if arguments.token is None else arguments.token
    files = (
        option or (Path(environ[variable]) if environ.get(variable) else None)
        for option, variable in (
            (arguments.ca, CA_VARIABLE),
            (arguments.cert, CERTIFICATE_VARIABLE),
            (arguments.key, KEY_VARIABLE),
        )
    )
    authority, certificate, key = files
    return WebPort(
        address=arguments.url or address,
        token=token.strip(),
        trust=build_tls_trust(authority, server_certificate=server_certificate, certificate=certificate, key=key),
        timeout_s=RESPONSE_TIMEOUT_S,
    )
