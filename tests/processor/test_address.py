from __future__ import annotations

import logging

import pytest

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.address import NetworkAddress, parse_network_address, warn_if_exposed


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:4317", NetworkAddress("127.0.0.1", 4317)),
        ("localhost:0", NetworkAddress("localhost", 0)),
        ("[::1]:4318", NetworkAddress("::1", 4318)),
    ],
)
def test_an_address_is_read_and_written(text: str, address: NetworkAddress) -> None:
    assert parse_network_address(text, option="receiver.grpc") == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["", "4317", ":4317", "host", "host:", "host:x", "host:65536", "host:-1", "h:²"])
def test_what_is_no_address_names_the_option(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"receiver\.grpc must be host:port"):
        parse_network_address(text, option="receiver.grpc")


@pytest.mark.parametrize(
    ("host", "is_encrypted", "has_token", "warning"),
    [
        ("127.0.0.1", False, False, None),
        ("localhost", False, False, None),
        ("::1", False, False, None),
        ("0.0.0.0", True, True, None),
        ("0.0.0.0", False, False, "WITHOUT TLS and without a token: whoever can reach this address can use it."),
        ("::", True, False, "WITHOUT a token: whoever can reach this address can use it."),
        (
            "collector.example",
            False,
            True,
            "WITHOUT TLS: whoever can reach this address can read what passes, the token too.",
        ),
    ],
)
def test_an_address_that_others_reach_without_tls_or_token_is_warned_of(
    host: str, is_encrypted: bool, has_token: bool, warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    address = NetworkAddress(host, 4317)
    with caplog.at_level(logging.WARNING, logger="otel_mlmon.receiver"):
        warn_if_exposed(address, option="receiver.grpc", is_encrypted=is_encrypted, has_token=has_token)
    advice = "Set both, or listen on 127.0.0.1."
    expected = [f"receiver.grpc listens on {address} {warning} {advice}"] if warning else []
    assert [record.getMessage() for record in caplog.records] == expected
