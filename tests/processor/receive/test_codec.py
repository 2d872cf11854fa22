"""The memory that a request would take is bounded before it is parsed, in both encodings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.errors import MalformedError
from otel_mlmon.processor.receive import codec
from otel_mlmon.processor.receive.admission import RequestAdmission
from otel_mlmon.processor.receive.codec import CODECS, MAX_EXPANSION, BodyFormat, Signal, parse_request
from otel_mlmon.processor.receive.inflate import BodyTooLargeError
from tests.support.otlp_requests import exponential, histogram, predictions, request

MAX_BYTES = 1_000_000


def field(number: int, content: bytes = b"") -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def nest(*numbers: int, content: bytes) -> bytes:
    for number in reversed(numbers):
        content = field(number, content)
    return content


def list_dense_bodies(count: int) -> Iterator[tuple[str, Signal, bytes]]:
    """Requests of messages without content, which take the most memory for their bytes."""
    yield "resource metrics", "metrics", field(1) * count
    yield "scope metrics", "metrics", nest(1, content=field(2) * count)
    yield "metrics", "metrics", nest(1, 2, content=field(2) * count)
    for name, number in (("gauge", 5), ("sum", 7), ("histogram", 9), ("exponential", 10), ("summary", 11)):
        yield f"points of a {name}", "metrics", nest(1, 2, 2, number, content=field(1) * count)
    yield "buckets", "metrics", nest(1, 2, 2, 10, content=field(1, field(8) + field(9)) * count)
    yield "counts of a byte", "metrics", nest(1, 2, 2, 10, 1, 8, content=field(2, b"\1" * 4 * count))
    yield "exemplars", "metrics", nest(1, 2, 2, 9, 1, content=field(8) * count)
    yield "attributes of a point", "metrics", nest(1, 2, 2, 9, 1, content=field(9) * count)
    yield "attributes of a resource", "metrics", nest(1, 1, content=field(1, field(2)) * count)
    yield "log records", "logs", nest(1, 2, content=field(2) * count)
    yield "values of an array", "logs", nest(1, 2, 2, 5, 5, content=field(1) * count)
    yield "spans", "traces", nest(1, 2, content=field(2) * count)
    yield "events of a span", "traces", nest(1, 2, 2, content=field(11) * count)


@pytest.mark.parametrize(("name", "signal", "body"), tuple(list_dense_bodies(60_000)))
def test_messages_without_content_are_refused_before_they_are_parsed(name: str, signal: Signal, body: bytes) -> None:
    CODECS[signal].request.FromString(body)  # it is a valid request
    with pytest.raises(BodyTooLargeError, match="would take more than 1000000 bytes of memory once it is parsed"):
        parse_request(signal, body, "protobuf", max_bytes=MAX_BYTES)
    assert parse_request(signal, body, "protobuf", max_bytes=96 * len(body)).ByteSize() > 0


JSON_HEAD, JSON_TAIL = '{"resourceMetrics":[{"scopeMetrics":[{"metrics":[', "]}]}]}"


@pytest.mark.parametrize("item", ["{}", '{"sum":{}}', "[]", '{"name":"\\"{\\\\"}', "[[]]", "0", '""'])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_json_of_many_small_values_is_refused_before_it_is_parsed(item: str, encoding: str) -> None:
    body = (JSON_HEAD + ",".join([item] * 20_000) + JSON_TAIL).encode(encoding)
    with pytest.raises(BodyTooLargeError):
        parse_request("metrics", body, "json", max_bytes=MAX_BYTES)


def test_braces_in_texts_are_no_objects() -> None:
    text = json.dumps({"bins": [{"upper": 1.0}] * 2_000, "quote": '"', "slash": "\\"})
    body = json.dumps({"resourceMetrics": [{"schemaUrl": text}]}).encode()
    parsed = parse_request("metrics", body, "json", max_bytes=4 * len(body))
    assert parsed.resource_metrics[0].schema_url == text


@pytest.mark.parametrize("body_format", ["protobuf", "json"])
def test_what_exporters_send_is_far_from_the_limit(body_format: BodyFormat) -> None:
    wide = exponential(3, (2, [1] * 80), (0, []), 0)
    parts = (
        predictions(points=500),
        request("ml.inference.duration", "histogram", histogram([0.1, 1.0], [1, 2, 3], sum=1.5), points=500),
        request("ml.prediction.confidence", "exponential_histogram", wide, points=500),
    )  # fmt: skip
    for part in parts:
        body = part.SerializeToString()
        if body_format == "json":
            body = json.dumps(json_format.MessageToDict(part, use_integers_for_enums=True)).encode()
        parsed = parse_request("metrics", body, body_format, max_bytes=16 * len(body))
        assert len(parsed.resource_metrics) == 1


def test_truncated_bodies_are_malformed_before_they_are_parsed() -> None:
    """Else what comes before the end would take its memory all the same."""
    dense = field(1) * 10_000
    for body in (nest(1, 2, content=dense)[:-1], dense + b"\x0a\x05", b"\x0e" + dense):
        with pytest.raises(MalformedError, match="not an OTLP metrics request in protobuf"):
            parse_request("metrics", body, "protobuf", max_bytes=MAX_BYTES)


@pytest.mark.parametrize("tag", [b"", b"\x08", b"\x0a"], ids=["tag", "number", "size"])
def test_a_number_of_more_than_ten_bytes_is_read_no_further(tag: bytes) -> None:
    """Its bits would take time by the square of its length: hours of a request of 64 MiB."""
    layout = codec._build_size_layout(CODECS["metrics"].request.DESCRIPTOR)
    for body in (tag + b"\x80" * 10 + b"\x00", tag + b"\xff" * 4_000_000 + b"\x01"):
        with pytest.raises(IndexError):
            codec._estimate_protobuf_memory(body, layout, 10**9)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["metrics", "logs", "traces"]))
def test_what_protobuf_reads_is_never_called_truncated(junk: bytes, signal: Any) -> None:
    for body in (junk, nest(1, 2, content=junk), nest(1, 2, 2, content=junk), nest(1, 2, 2, 9, content=junk)):
        try:
            CODECS[signal].request.FromString(body)
        except DecodeError:
            continue
        layout = codec._build_size_layout(CODECS[signal].request.DESCRIPTOR)
        size_bytes = codec._estimate_protobuf_memory(body, layout, 10**9)
        assert len(body) <= size_bytes <= MAX_EXPANSION["protobuf"] * len(body) + 100
        assert size_bytes <= codec._bound_protobuf_memory(body, layout)


@pytest.mark.parametrize(("name", "signal", "body"), tuple(list_dense_bodies(1_000)))
def test_the_bound_that_spares_the_walk_is_one(name: str, signal: Signal, body: bytes) -> None:
    layout = codec._build_size_layout(CODECS[signal].request.DESCRIPTOR)
    longer = body.replace(b"\x0a", b"\x8a\x00", 1)  # a tag may take more bytes than it needs
    for whole in (body, field(1, body), field(1, field(2, body)), longer):
        with suppress(IndexError):
            assert codec._estimate_protobuf_memory(whole, layout, 10**9) <= codec._bound_protobuf_memory(whole, layout)


def test_what_exporters_send_is_not_walked_far_below_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_estimate_protobuf_memory", lambda *_: pytest.fail("it is walked"))
    body = predictions(points=5_000).SerializeToString()
    assert len(parse_request("metrics", body, "protobuf", max_bytes=40 * len(body)).resource_metrics) == 1


def test_a_dense_request_is_refused_and_gives_its_place_back() -> None:
    admission = RequestAdmission(lambda *_: None, max_request_bytes=2**20)  # type: ignore[arg-type]
    body = nest(1, 2, content=field(2) * 450_000)
    with pytest.raises(BodyTooLargeError, match="more than 67108864 bytes"):
        admission.consume_request("traces", body)
    assert (admission.pending_bytes, admission.read_counts.malformed) == (0, 0)
