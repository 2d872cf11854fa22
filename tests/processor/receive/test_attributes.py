from __future__ import annotations

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from otel_mlmon.processor.receive.attributes import encode_canonical_text, read_attributes, read_text

NESTED = AnyValue(
    kvlist_value=KeyValueList(
        values=[
            KeyValue(key="b", value=AnyValue(array_value=ArrayValue(values=[AnyValue(), AnyValue(int_value=2)]))),
            KeyValue(key="a", value=AnyValue(bytes_value=b"\x00\xff")),
        ]
    )
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (AnyValue(string_value="é"), "é"),
        (AnyValue(string_value=""), ""),
        (AnyValue(), ""),
        (AnyValue(bool_value=False), "false"),
        (AnyValue(int_value=-7), "-7"),
        (AnyValue(double_value=0.5), "0.5"),
        (AnyValue(bytes_value=b"\x00\xff"), "AP8="),
        (AnyValue(array_value=ArrayValue()), "[]"),
        (NESTED, '{"a":"AP8=","b":[null,2]}'),
    ],
)
def test_every_kind_of_value_has_a_text(value: AnyValue, text: str) -> None:
    assert read_text(read_attributes([KeyValue(key="k", value=value)])["k"]) == text


def test_of_a_key_that_is_there_twice_the_last_counts() -> None:
    twice = [
        KeyValue(key="k", value=AnyValue(string_value="1")),
        KeyValue(key="k", value=AnyValue(int_value=2)),
    ]
    assert read_attributes(twice) == {"k": 2}


def test_the_canonical_form_is_ascii_and_independent_of_order() -> None:
    assert encode_canonical_text({"b": "é", "a": 1}) == "[('a', 1), ('b', '\\xe9')]"
    assert encode_canonical_text({"a": 1, "b": "é"}) == "[('a', 1), ('b', '\\xe9')]"
