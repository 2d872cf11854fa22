from __future__ import annotations

import logging

import pytest

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.address import Address, parse, warn_if_exposed


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:4317", Address("127.0.0.1", 4317)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:4318", Address("::1", 4318)),
    ],
)
def test_an_address_is_read_and_written(text: str, address: Address) -> None:
    assert parse(text, option="receiver.grpc") == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["", "4317", ":4317", "host", "host:", "host:x", "host:65536", "host:-1", "h:²"])
def test_what_is_no_address_names_the_option(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"receiver\.grpc must be host:port"):
        parse(text, option="receiver.grpc")


@pytest.mark.parametrize(
    ("host", "is_encrypted", "warns"),
    [
        ("127.0.0.1", False, False),
        ("localhost", False, False),
        ("::1", False, False),
        ("0.0.0.0", False, True),
        ("::", False, True),
        ("collector.example", False, True),
        ("0.0.0.0", True, False),
    ],
)
def test_an_address_that_others_reach_in_the_clear_is_warned_of(
    host: str, is_encrypted: bool, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="otel_mlmon.receiver"):
        warn_if_exposed(Address(host, 4317), option="receiver.grpc", is_encrypted=is_encrypted)
    assert [record.levelname for record in caplog.records] == (["WARNING"] if warns else [])
