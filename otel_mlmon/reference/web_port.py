"""Sends requests to the web port of a running processor, and reads its JSON answers."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import httpx

from otel_mlmon.errors import ConfigurationError, ProcessorError

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
OPTION: Final = "--url"
"""The option of every command that sets the address, for messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebPort:
    """Describes how to reach the web port of a processor: address, token, trusted certificates and timeout."""

    address: str
    """With or without `http://`."""
    token: str = ""
    """Sent with every request; empty sends none."""
    trust: ssl.SSLContext | None = None
    """Certificates of an https address that are trusted, and the own one; None for those that the system trusts."""
    timeout_s: float
    """How long each step of a request may take, above 0."""

    @property
    def base_url(self) -> str:
        """The address of the web port with its scheme, and without a slash at its end."""
        return (self.address if "://" in self.address else f"http://{self.address}").rstrip("/")


def request_json_document(
    method: str,
    port: WebPort,
    path: str,
    *,
    query: Mapping[str, Any] | None = None,
    body: Mapping[str, Any] | None = None,
    advice: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Sends one request to a processor's web port, and returns the JSON object of its answer.

    Args:
        method: `GET`, `POST` or `DELETE`.
        port: The web port.
        path: The path of the request, quoted.
        query: The parameters of the path.
        body: What is sent as JSON; None sends nothing.
        advice: What to do, by the reason for which the processor refuses.

    Raises:
        ConfigurationError: The address is none.
        ProcessorError: Nothing answers there, it is no processor, or it refuses; says why.
    """
    base = port.base_url
    with open_web_client(port) as client:
        response = client.request(method, path, params=query, json=body)
    document = parse_json_response(response)
    if response.is_success and isinstance(document, dict):
        return document
    refusal = read_error_document(response, base)
    raise ProcessorError(f"{base}: {refusal['error']}{advice.get(str(refusal.get('reason', '')), '')}")


@contextmanager
def open_web_client(port: WebPort) -> Iterator[httpx.Client]:
    """Opens a client of a processor's web port; no redirect is followed.

    Raises:
        ConfigurationError: The address is none.
        ProcessorError: Nothing answers there.
    """
    base = port.base_url
    try:
        host = httpx.URL(base).host
        # A proxy of the environment is for the world outside, and would be asked for 127.0.0.1 too.
        with httpx.Client(
            base_url=base if host else "",
            headers={"Authorization": f"Bearer {port.token}"} if port.token else {},
            timeout=port.timeout_s,
            trust_env=host not in LOOPBACK,
            # Authorities take 20 ms to read, and only https asks for them.
            verify=port.trust if port.trust is not None else httpx.URL(base).scheme == "https",
        ) as client:
            yield client
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ConfigurationError(f"{OPTION}: {port.address!r} is no address of a web port: {error}") from error
    except httpx.HTTPError as error:
        cause = str(error) or type(error).__name__
        raise ProcessorError(
            f"{base}: no processor answers there: {cause}; give the address of one with {OPTION}"
        ) from error


def build_tls_trust(
    authority: Path | None, *, server_certificate: Path | None, certificate: Path | None, key: Path | None
) -> ssl.SSLContext | None:
    """Builds the TLS context of a client: which certificates of a server it trusts, and which one it shows.

    Args:
        authority: A PEM file; None for the authorities that the system trusts.
        server_certificate: A PEM file whose certificate is trusted without an authority, under whatever name: that of
            a processor on this machine.
        certificate: A PEM file, shown to a server that asks for one; None to show none.
        key: Its key, in PEM; None if it is in the same file.

    Returns:
        None where none of the three is given.

    Raises:
        ConfigurationError: A PEM file cannot be used, or there is a key without a certificate.
    """
    if key is not None and certificate is None:
        raise ConfigurationError(f"{key}: is the key of no certificate; give that one with --cert")
    if authority is None and server_certificate is None and certificate is None:
        return None
    trust = _load_certificate_authority(authority or server_certificate)
    if authority is None and server_certificate is not None:
        trust.check_hostname = False
        trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if certificate is not None:
        try:
            trust.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"{certificate}: cannot be used as a certificate with its key: {error}") from error
    return trust


def read_error_document(response: httpx.Response, base: str) -> dict[str, Any]:
    """Reads the JSON object `{"error": message, …}` by which a processor answers a request that it refuses.

    Raises:
        ProcessorError: It is none of a processor's.
    """
    document = parse_json_response(response)
    if not isinstance(document, dict) or not isinstance(document.get("error"), str):
        raise ProcessorError(f"{base}: answers {response.status_code}, and is no processor's web port")
    return document


def parse_json_response(response: httpx.Response) -> Any:
    """Returns the JSON document of an HTTP answer; None if it is not JSON."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _load_certificate_authority(path: Path | None) -> ssl.SSLContext:
    if path is None:
        return httpx.create_ssl_context()
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"{path}: cannot be used as a certificate authority: {error}") from error
