"""State to and from the store: what changed since the last save, and nothing else.

Kinds of blobs: `meta` (when counting began), `announced` (references that models carry), `model`, `stream` (references
of streams), `pane` (closed panes, whose counts make up the rolling windows again), `hour` (what references that move
are made of), `series` (where a running total stands), `point` (points that wait for their pane).
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterable
from json.encoder import encode_basestring_ascii
from typing import Any, Final

import numpy as np

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.state.codec import decode, encode
from otel_mlmon.processor.state.sqlite import Store
from otel_mlmon.processor.window.model import ClosedPane, Model, Recent
from otel_mlmon.processor.window.moving_reference import HOUR_NS, Hour
from otel_mlmon.processor.window.reference import Baseline
from otel_mlmon.processor.window.rolling import Slot
from otel_mlmon.processor.window.series import Point, PointKey, Series, SeriesKey
from otel_mlmon.processor.window.state import Announced, Changes, State
from otel_mlmon.processor.window.window import StreamKey
from otel_mlmon.reference.embedding import decode_profile
from otel_mlmon.sketch.moments import format_exact, parse_exact
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import ModelKey

_POINT: Final = struct.Struct("<qB")
_TRACE_ID_CHARACTERS: Final = 32


def save(state: State, store: Store, *, now_ns: int) -> None:
    """Write what changed; if this or the commit fails it counts as changed again.

    Raises:
        StoreError: The disk refused it.
    """
    changes, state.changes = state.changes, Changes()
    was_stored, state.is_stored = state.is_stored, True

    def undo() -> None:
        state.changes.put_back(changes)
        state.is_stored = was_stored

    store.on_rollback(undo)
    try:
        if not was_stored:
            store.put("meta", "started", str(state.started_ns).encode())
        _remove(changes, store)
        _write(state, changes, store)
        if changes.panes:
            store.prune("pane", f"{max(now_ns - state.windows.stored_ns, 0):020d}")
            store.prune("hour", f"{max(now_ns // HOUR_NS - state.windows.history_hours, 0):010d}")
    except StoreError:
        undo()
        raise


def load(state: State, store: Store) -> None:
    """Fill an empty state with what was saved; leaves it as it is if nothing was.

    Raises:
        StoreError: The store cannot be read, or what it holds is damaged.
    """
    started = store.load("meta").get("started")
    if started is None:
        return
    try:
        state.started_ns, state.is_stored = int(started), True
        for kind, take in _LOADERS:
            for blob in store.load(kind).values():
                take(state, json.loads(blob))
        newest_ns = min((model.last_ns for model in state.models.values()), default=0)
        since = f"{max(newest_ns - state.windows.rolling_ns, 0):020d}"
        for blob in store.load("pane", since=since).values():
            _load_pane(state, json.loads(zlib.decompress(blob)))
        for model in state.models.values():
            for stream in model.streams.values():
                stream.rolling.evict(model.last_ns)
                stream.turn(model.last_ns)
        for name, blob in store.load("point").items():
            _load_point(state, json.loads(name), blob)
    except (KeyError, TypeError, ValueError, IndexError, struct.error, zlib.error) as error:
        raise StoreError(f"the stored state is damaged: {type(error).__name__}: {error}") from error


def _remove(changes: Changes, store: Store) -> None:
    removed: tuple[tuple[str, list[str]], ...] = (
        ("announced", [_name(*model) for model in changes.removed_announced]),
        ("model", [_name(*model) for model in changes.removed_models]),
        ("stream", [_name(*stream.model, stream.stream) for stream in changes.removed_streams]),
        ("series", [_name(*series) for series in changes.removed_series]),
        ("point", [_point_name(*point) for point in changes.removed_points]),
    )
    for kind, names in removed:
        if names:
            store.delete_many(kind, sorted(names))


def _write(state: State, changes: Changes, store: Store) -> None:
    blobs: tuple[tuple[str, list[tuple[str, bytes]]], ...] = (
        ("announced", [(_name(*key), _json(_announced_row(state, key))) for key in changes.announced]),
        ("model", [(_name(*key), _json(_model_row(state.models[key]))) for key in changes.models]),
        ("stream", [(_name(*key.model, key.stream), _json(_stream_row(state, key))) for key in changes.streams]),
        ("series", [(_name(*key), _json(_series_row(state.series[key]))) for key in changes.series]),
        ("point", [(_point_name(*point), _point_blob(state, *point)) for point in changes.points]),
        ("hour", list(_hours(changes.panes).items())),
        ("pane", [(_pane_name(pane), zlib.compress(_json(_pane_row(pane)), 1)) for pane in changes.panes]),
    )
    for kind, of_kind in blobs:
        if of_kind:
            store.put_many(kind, sorted(of_kind))


def _name(*parts: str | int) -> str:
    return json.dumps(parts)


def _point_name(series: SeriesKey, point: PointKey) -> str:
    """As `_name` has it, at a third of the time: there are many points."""
    return f"[{encode_basestring_ascii(series.series)}, {series.start_ns}, {point[0]}, {point[1]}]"


def _pane_name(pane: ClosedPane) -> str:
    return f"{pane.recent.end_ns:020d} {_name(*pane.model)}"


def _json(row: dict[str, Any]) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode()


_MODEL_FIELDS: Final = ("arrived_ns", "watermark_ns", "closed_ns", "first_ns", "last_ns", "predictions")


def _model_row(model: Model) -> dict[str, Any]:
    return {"model": model.key, **{name: getattr(model, name) for name in _MODEL_FIELDS}}


def _load_model(state: State, row: dict[str, Any]) -> None:
    key = ModelKey(*row["model"])
    state.models[key] = Model(
        key=key,
        settings=state.settings_of(key),
        windows=state.windows,
        **{name: row[name] for name in _MODEL_FIELDS},
    )


def _announced_row(state: State, key: ModelKey) -> dict[str, Any]:
    announced = state.announced[key]
    return {"model": key, "text": announced.text, "arrived_ns": announced.arrived_ns}


def _load_announced(state: State, row: dict[str, Any]) -> None:
    profile = decode_profile(row["text"])
    state.announced[ModelKey(*row["model"])] = Announced(row["text"], profile, row["arrived_ns"])


def _stream_row(state: State, key: StreamKey) -> dict[str, Any]:
    baseline = state.models[key.model].streams[key.stream].baseline
    return {"model": key.model, "stream": key.stream, "baseline": baseline.to_state()}


def _load_stream(state: State, row: dict[str, Any]) -> None:
    model, stream = state.models[ModelKey(*row["model"])], row["stream"]
    baseline = Baseline.restore(row["baseline"], stream=stream, settings=model.settings)
    model.streams[stream] = model.stream_of(stream, baseline)


def _pane_row(pane: ClosedPane) -> dict[str, Any]:
    return {
        "model": pane.model,
        "start_ns": pane.recent.start_ns,
        "end_ns": pane.recent.end_ns,
        "duration": pane.recent.duration.to_dict(),
        "failed": pane.recent.failed,
        "slots": {
            name: [generation, slot.counts.tolist(), slot.number_count, format_exact(slot.exact_sum)]
            for name, generation, slot in pane.slots
        },
    }


def _load_pane(state: State, row: dict[str, Any]) -> None:
    model = state.models.get(ModelKey(*row["model"]))
    if model is None:
        return
    start_ns, end_ns = row["start_ns"], row["end_ns"]
    model.remember(
        Recent(start_ns=start_ns, end_ns=end_ns, duration=StreamSketch.from_dict(row["duration"]), failed=row["failed"])
    )
    for name, (generation, counts, number_count, exact_sum) in row["slots"].items():
        stream = model.streams[name]
        reference = stream.baseline.reference
        # Counts over other bins are of no use: the reference changed since, or the settings did.
        is_same = reference is not None and len(counts) == reference.bins.count
        if is_same and generation == stream.baseline.generation:
            values = np.array(counts, dtype=np.int64)
            stream.rolling.add(Slot(start_ns, end_ns, values, number_count, parse_exact(exact_sum)))


def _hours(panes: Iterable[ClosedPane]) -> dict[str, bytes]:
    """By key, of each hour what the last of the panes knew."""
    return {
        f"{hour:010d} {_name(*pane.model, stream)}": _json(
            {
                "stream": (pane.model, stream),
                "generation": generation,
                "hour": hour,
                "counts": counted.counts.tolist(),
                "numbers": counted.numbers,
                "sum": format_exact(counted.exact_sum),
            }
        )
        for pane in panes
        for stream, generation, hour, counted in pane.hours
    }


def _load_hour(state: State, row: dict[str, Any]) -> None:
    model = state.models.get(ModelKey(*row["stream"][0]))
    stream = model.streams.get(row["stream"][1]) if model is not None else None
    if stream is None or stream.history is None or stream.baseline.reference is None:
        return
    is_same = len(row["counts"]) == stream.baseline.reference.bins.count
    if is_same and row["generation"] == stream.baseline.generation:
        counts = np.array(row["counts"], dtype=np.int64)
        stream.history.hours[row["hour"]] = Hour(counts, row["numbers"], parse_exact(row["sum"]))


def _series_row(series: Series) -> dict[str, Any]:
    return {
        "key": series.key,
        "model": series.model,
        "metric": series.metric,
        "name": series.name,
        "category": series.category,
        "seen_ns": series.seen_ns,
        "newest_ns": series.newest_ns,
        "taken": list(series.taken),
        "base": None if series.base is None else base64.b64encode(encode(series.base)).decode(),
        "base_ns": series.base_ns,
    }


def _load_series(state: State, row: dict[str, Any]) -> None:
    series = Series(
        key=SeriesKey(*row["key"]),
        model=ModelKey(*row["model"]),
        metric=row["metric"],
        name=row["name"],
        category=row["category"],
        seen_ns=row["seen_ns"],
        newest_ns=row["newest_ns"],
        base=None if row["base"] is None else decode(base64.b64decode(row["base"])),
        base_ns=row["base_ns"],
    )
    series.taken.extend((start_ns, time_ns) for start_ns, time_ns in row["taken"])
    state.add_series(series)


_LOADERS: Final = (
    ("announced", _load_announced),
    ("model", _load_model),
    ("stream", _load_stream),
    ("hour", _load_hour),
    ("series", _load_series),
)
"""In the order in which they need each other."""


def _point_blob(state: State, key: SeriesKey, point_key: PointKey) -> bytes:
    point = state.series[key].waiting[point_key]
    point.is_stored = True
    head = _POINT.pack(point.pane_end_ns, len(point.exemplars))
    return head + "".join(point.exemplars).encode() + encode(point.sketch)


def _load_point(state: State, name: tuple[str, int, int, int], blob: bytes) -> None:
    series = state.series[SeriesKey(name[0], name[1])]
    key: PointKey = (name[2], name[3])
    pane_end_ns, exemplar_count = _POINT.unpack_from(blob)
    at = _POINT.size + exemplar_count * _TRACE_ID_CHARACTERS
    text = blob[_POINT.size : at].decode()
    exemplars = tuple(text[i : i + _TRACE_ID_CHARACTERS] for i in range(0, len(text), _TRACE_ID_CHARACTERS))
    series.waiting[key] = Point(pane_end_ns, decode(blob[at:]), exemplars, is_stored=True)
    series.newest_ns = max(series.newest_ns, key[1])
    state.models[series.model].open.setdefault(pane_end_ns, {})[series.key] = series
