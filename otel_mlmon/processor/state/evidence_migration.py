"""Reads the evidence of a stream as format 10 has it, and joins that of several streams as format 11 has it.

Format 10 has a record with small arrays for each stream; format 11 has one for several streams, with the same arrays
side by side: stacked, or where their lengths differ one after the other, with the numbers of their elements.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final, NamedTuple

_LEVELS, _HOURS, _PLUG_INS = 6, 24, 3
_ITEM_SIZES: Final = {"<f8": 8, "<i8": 8, "|b1": 1}
_NO_PRIOR: Final = {"prior_estimate": 0.0, "prior_divisor": 0.0}
_NO_TRAFFIC: Final = {"first_ns": 0, "last_ns": 0, "hours": ("<f8", [_HOURS], bytes(8 * _HOURS))}


class SliceOfOne(NamedTuple):
    """The detection state of one stream, in the parts of which a record of format 11 has columns."""

    model: list[str]
    stream: str
    entry: int
    score: dict[str, Any]
    bins: list[str]
    direction: str
    """Empty for a stream without evidence."""
    columns: dict[str, Any]
    """Stored arrays by name, and dictionaries of those for what is nested; empty for a stream without evidence."""

    @property
    def group(self) -> tuple[Any, ...]:
        """The model, entry, direction and number of bins, which all streams of one record share."""
        return (*self.model, self.entry, self.direction, len(self.bins))


def read_stream(record: Mapping[str, Any]) -> SliceOfOne:
    """Reads a record of format 10.

    Raises:
        LookupError, TypeError, ValueError, struct.error: It contradicts itself.
    """
    (model, stream), state = record["stream"], record["state"]
    if len(model) != 3 or not all(type(text) is str for text in (*model, stream)):
        raise ValueError("the stream is none")
    columns, bins, direction = {}, [], ""
    if state is not None:
        bins, direction = list(state["bins"]), state["direction"]
        columns = _read_evidence(state["evidence"], len(bins), is_two_sided=direction == "both")
    return SliceOfOne(model, stream, int(record["entry"]), dict(record["score"]), bins, direction, columns)


def join_streams(number: int, streams: Sequence[SliceOfOne]) -> dict[str, Any]:
    """Builds the record of format 11 of several streams of one group.

    Args:
        number: The number of the record.
        streams: At least one.
    """
    first, evidence = streams[0], None
    if first.direction:
        columns = _join_columns([stream.columns for stream in streams])
        bins = [stream.bins for stream in streams]
        evidence = {"bins": bins, "direction": first.direction, "evidence": columns}
    return {
        "number": number,
        "model": first.model,
        "streams": [stream.stream for stream in streams],
        "scores": [stream.score for stream in streams],
        "evidence": evidence,
        "entry": first.entry,
    }


def _read_evidence(evidence: Mapping[str, Any], bins: int, *, is_two_sided: bool) -> dict[str, Any]:
    history = (_PLUG_INS, bins)
    has_cycle = evidence.get("expected") is not None
    expected = _stack_arrays(evidence, expected=("<f8", history)) if has_cycle else {}
    if (evidence["rare_bins"] is not None) != is_two_sided:
        raise ValueError("two-sided evidence has bets on rare bins, and no other has")
    return {
        **_pack_numbers(evidence, "<d", "tolerance", "log_e"),
        **_pack_numbers(evidence, "<q", "since_ns", "last_ns"),
        **_pack_numbers({**evidence, "has_cycle": has_cycle}, "<?", "is_drift", "has_cycle"),
        **_stack_arrays(evidence, reference=("<f8", (bins,)), history=("<f8", history), contributions=("<f8", (bins,))),
        "expected": expected.get("expected", ("<f8", [0, *history], b"")),
        **_list_arrays(evidence, "component_counts", components="<i8", log_cusums="<f8", onsets_ns="<i8"),
        "rare_bins": _read_rare_bins(evidence["rare_bins"]) if is_two_sided else None,
        "design_effects": _read_design_effect(evidence["design_effect"], bins),
        "traffic": _read_traffic(evidence.get("traffic") or _NO_TRAFFIC),
    }


def _read_rare_bins(rare_bins: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_list_arrays(rare_bins, "bin_counts", bins="<i8", lifts="<f8", peaks="<f8", since_ns="<i8"),
        **_list_arrays(rare_bins, "bet_counts", bets="<i8", log_cusums="<f8", onsets_ns="<i8"),
    }


def _read_design_effect(effect: Mapping[str, Any], bins: int) -> dict[str, Any]:
    counts = _stack_arrays(effect, difference_counts=("<i8", (_LEVELS,)), pending_counts=("<i8", (_LEVELS,)))
    size = sum(struct.unpack(f"<{_LEVELS}q", counts["difference_counts"][2]))
    return {
        **_pack_numbers({**_NO_PRIOR, **effect}, "<d", "items", "prior_estimate", "prior_divisor"),
        **_pack_numbers(effect, "<?", "is_calibrated"),
        **_stack_arrays(
            effect,
            long_run=("<f8", (bins + 1,)),
            blocks=("<f8", (_LEVELS, bins + 1)),
            means=("<f8", (_LEVELS, bins + 2)),
        ),
        **counts,
        "differences": ("<f8", [size], _read_array(effect["differences"], "<f8", [size])),
    }


def _read_traffic(traffic: Mapping[str, Any]) -> dict[str, Any]:
    return {**_pack_numbers(traffic, "<q", "first_ns", "last_ns"), **_stack_arrays(traffic, hours=("<f8", (_HOURS,)))}


_DTYPES: Final = {"<d": "<f8", "<q": "<i8", "<?": "|b1"}


def _pack_numbers(values: Mapping[str, Any], form: str, *names: str) -> dict[str, Any]:
    """Packs numbers as arrays of one number, in a form of `struct`."""
    return {name: (_DTYPES[form], [1], struct.pack(form, values[name])) for name in names}


def _stack_arrays(values: Mapping[str, Any], **columns: tuple[str, tuple[int, ...]]) -> dict[str, Any]:
    """Gives stored arrays of known types and shapes a first axis, of length 1."""
    return {
        name: (dtype, [1, *shape], _read_array(values[name], dtype, list(shape)))
        for name, (dtype, shape) in columns.items()
    }


def _list_arrays(values: Mapping[str, Any], counts: str, **dtypes: str) -> dict[str, Any]:
    """Returns stored arrays of known types and the same length, whatever it is, and that length under a name."""
    size = values[next(iter(dtypes))][1][0]
    arrays = {name: (dtype, [size], _read_array(values[name], dtype, [size])) for name, dtype in dtypes.items()}
    return {counts: ("<i8", [1], struct.pack("<q", size)), **arrays}


def _read_array(value: Sequence[Any], dtype: str, shape: list[int]) -> bytes:
    """Returns the bytes of a stored array.

    Raises:
        ValueError: It has another type or shape.
    """
    found, dimensions, blob = value
    if found != dtype or list(dimensions) != shape or len(blob) != _ITEM_SIZES[dtype] * prod(shape):
        raise ValueError(f"an array of {found} and shape {dimensions} where one of {dtype} and {shape} is expected")
    return bytes(blob)


def _join_columns(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Joins stored arrays of the same names along their first axis."""
    joined: dict[str, Any] = {}
    for name, first in parts[0].items():
        values = [part[name] for part in parts]
        if first is None or isinstance(first, dict):
            joined[name] = first and _join_columns(values)
        else:
            dtype, (_, *shape), _ = first
            size = sum(dimensions[0] for _, dimensions, _ in values)
            joined[name] = (dtype, [size, *shape], b"".join(blob for *_, blob in values))
    return joined
