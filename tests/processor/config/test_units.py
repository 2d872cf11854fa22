from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.processor.config import units
from otel_mlmon.processor.config.units import FalseAlarms


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10.0), ("200ms", 0.2), ("5m", 300.0), ("14d", 1209600.0), ("1h30m", 5400.0), (" 2 w ", 1209600.0),
     ("1.5s", 1.5), ("250us", 0.00025), (0, 0.0), ("0", 0.0)],
)  # fmt: skip
def test_durations_are_read(text: object, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize("wrong", ["", "10", "s", "10 apples", "-5s", "10s x", 10, 1.5, False, None, [], "1e3s"])
def test_what_is_no_duration_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="with its unit"):
        units.parse_duration(wrong)


@given(st.integers(min_value=0, max_value=10**15))
@settings(deadline=None, max_examples=200)
def test_a_duration_written_is_read_as_itself(microseconds: int) -> None:
    seconds = microseconds / 10**6
    assert units.parse_duration(units.format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "count"), [("64MiB", 2**26), ("10MB", 10**7), ("1.5KiB", 1536), ("512B", 512), (7, 7), ("7", 7)]
)
def test_sizes_are_read(text: object, count: int) -> None:
    assert units.parse_size(text) == count


@pytest.mark.parametrize("wrong", ["", "64 mib", -1, 1.5, True, None, "MiB"])
def test_what_is_no_size_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="must be a size"):
        units.parse_size(wrong)


@given(st.integers(min_value=0, max_value=2**40))
@settings(deadline=None, max_examples=200)
def test_a_size_written_is_read_as_itself(count: int) -> None:
    assert units.parse_size(units.format_size(count)) == count


@pytest.mark.parametrize(
    ("text", "ratio"),
    [("2%", 0.02), ("0.5 %", 0.005), (0.02, 0.02), ("0.02", 0.02), (0, 0.0), (1, 1.0), ("100%", 1.0)],
)
def test_ratios_are_read(text: object, ratio: float) -> None:
    assert units.parse_ratio(text) == ratio


@pytest.mark.parametrize("wrong", ["", "2", 2, "101%", -0.1, True, None, "nan", float("nan"), float("inf"), "two"])
def test_what_is_no_ratio_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="ratio"):
        units.parse_ratio(wrong)


@given(st.floats(min_value=0, max_value=1))
@settings(deadline=None, max_examples=200)
def test_a_ratio_written_is_read_as_itself(ratio: float) -> None:
    assert units.parse_ratio(units.format_ratio(ratio)) == ratio


def test_false_alarms_are_read_and_written() -> None:
    rate = FalseAlarms(count=1.0, per_s=30 * 86400.0)
    assert units.parse_false_alarms("1 per 30d") == rate
    assert units.parse_false_alarms(units.format_false_alarms(rate)) == rate


@pytest.mark.parametrize("wrong", ["", "never", "1", "0 per 30d", "1 per 0s", "1 per 30", 1, None])
def test_what_is_no_rate_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        units.parse_false_alarms(wrong)


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:4317", "127.0.0.1:4317"), ("[::1]:0", "[::1]:0"), ("localhost:080", "localhost:80")],
)
def test_addresses_are_read(text: str, address: str) -> None:
    assert units.parse_address(text) == address


@pytest.mark.parametrize("wrong", ["127.0.0.1", ":80", "host:", "host:http", "host:65536", "::1:80", 80, None])
def test_what_is_no_address_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="host:port"):
        units.parse_address(wrong)


@pytest.mark.parametrize("wrong", ["", "example.org", "ftp://x", "http://", "http://a b", "http://x:99999", None, 1])
def test_what_is_no_http_address_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="http://"):
        units.parse_http_url(wrong)
