"""A reference profile: a versioned JSON document of the sketches of a model's streams.

    {"format": "otel-mlmon.reference", "version": 1,
     "model": {"name": "fraud", "version": "7"}, "created": "2026-01-31T12:00:00Z",
     "streams": {"prediction.label": {"categories": {"ham": 90, "spam": 10}}, "input.age": {"exponential":
     {…}}},
     "calibration": {"right": [0, …, 81], "total": [0, …, 84]}, "unstationary": ["input.age"]}

`calibration` is there if the data had labels, `unstationary` if a processor learned it and a stream moved. It holds
counts, never a row of the data. Sums are exact, so profiles of parts of the data merge to that of the whole.
"""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from otel_mlmon import semconv
from otel_mlmon.errors import ProfileError
from otel_mlmon.reference.calibration import Calibration
from otel_mlmon.sketch.categories import Categories
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.stream_sketch import StreamSketch

Part = TypeVar("Part")

FORMAT: Final = "otel-mlmon.reference"
VERSION: Final = 1
_KEYS: Final = ("format", "version", "model", "created", "streams")
_OPTIONAL_KEYS: Final = ("calibration", "unstationary")


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What each stream of one model version counted."""

    model: str
    version: str = ""
    """Of the model; empty if unknown."""
    created: str
    """RFC 3339, UTC."""
    streams: Mapping[str, StreamSketch] = field(default_factory=dict)
    """By stream name, as `semconv` has it."""
    calibration: Calibration | None = None
    """How often predictions were right, by confidence; None if no label was known."""
    unstationary: tuple[str, ...] = ()
    """Streams that moved while a processor learned them, sorted: what is judged by them may alarm early."""

    @classmethod
    def from_data(
        cls,
        *,
        model: str,
        version: str = "",
        labels: Sequence[str] | None = None,
        confidences: NDArray[Any] | None = None,
        values: NDArray[Any] | None = None,
        features: Mapping[str, NDArray[Any]] | None = None,
        calibration: Calibration | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> Profile:
        """From what a model was given and answered.

        Args:
            model: Its name.
            version: Its version; empty if unknown.
            labels: Predicted labels, one a row.
            confidences: Shape (n,), in [0, 1]; those that are not finite are left out.
            values: Of a regression output, any shape; those that are not finite are left out.
            features: By name, shape (n,) each. Numbers are profiled as numbers, NaN and infinite ones as
            missing;
                text as categories, None and NaN as missing.
            calibration: How often the predictions were right.
            now: The time of making.
        """
        streams: dict[str, StreamSketch] = {}
        if labels is not None:
            streams[semconv.STREAM_LABEL] = StreamSketch(categories=Categories(counts=Counter(map(str, labels))))
        if confidences is not None:
            histogram = Histogram.from_values(_finite(confidences), semconv.CONFIDENCE_BOUNDS)
            streams[semconv.STREAM_CONFIDENCE] = StreamSketch(explicit={histogram.bounds: histogram})
        if values is not None:
            streams[semconv.STREAM_VALUE] = StreamSketch(exponential=ExponentialHistogram.from_values(_finite(values)))
        for name, column in (features or {}).items():
            streams[f"{semconv.STREAM_INPUT_PREFIX}{name}"] = _feature(np.asarray(column).ravel())
        return cls(
            model=model, version=version, created=format_timestamp(now()), streams=streams, calibration=calibration
        )

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Profile:
        """From a file.

        Raises:
            ProfileError: It cannot be read, or is not a profile; says what and where.
        """
        try:
            document = json.loads(Path(path).read_bytes())
        except OSError as error:
            raise ProfileError(f"{path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise ProfileError(f"{path}: not JSON: {error}") from error
        try:
            return cls.from_dict(document)
        except ProfileError as error:
            raise ProfileError(f"{path}: {error}") from error

    def write(self, path: str | os.PathLike[str]) -> None:
        """To a file, which is replaced whole or not at all.

        Raises:
            OSError: It cannot be written.
        """
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
        replace_file(Path(path), text.encode())

    def merge(self, other: Profile) -> Profile:
        """Of both data sets together; name, version and time are this one's."""
        streams = dict(self.streams)
        for name, stream_sketch in other.streams.items():
            streams[name] = streams[name].merge(stream_sketch) if name in streams else stream_sketch
        mine, others = self.calibration, other.calibration
        calibration = mine.merge(others) if mine is not None and others is not None else mine or others
        unstationary = tuple(sorted({*self.unstationary, *other.unstationary}))
        return replace(self, streams=streams, calibration=calibration, unstationary=unstationary)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; `from_dict` is its inverse."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": {"name": self.model, "version": self.version},
            "created": self.created,
            "streams": {name: stream_sketch.to_dict() for name, stream_sketch in sorted(self.streams.items())},
            **({"calibration": self.calibration.to_dict()} if self.calibration is not None else {}),
            **({"unstationary": list(self.unstationary)} if self.unstationary else {}),
        }

    @classmethod
    def from_dict(cls, document: object) -> Profile:
        """From `to_dict`.

        Raises:
            ProfileError: It is not a profile, or of a version this release does not know; says what and
            where.
        """
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ProfileError(f"not a reference profile: format is not {FORMAT!r}")
        if document.get("version") != VERSION:
            raise ProfileError(f"version: {document.get('version')!r} is unknown, this release reads {VERSION}")
        odd = sorted(map(str, set(document) - set(_OPTIONAL_KEYS) ^ set(_KEYS)))
        if odd:
            raise ProfileError(f"{odd[0]}: {'missing' if odd[0] in _KEYS else 'unknown key'}")
        model = _mapping(document["model"], "model")
        streams = _mapping(document["streams"], "streams")
        return cls(
            model=_text(model.get("name"), "model.name"),
            version=_text(model.get("version", ""), "model.version"),
            created=_text(document["created"], "created"),
            streams={name: _read_stream_sketch(part, f"streams[{name!r}]") for name, part in streams.items()},
            calibration=_calibration(document["calibration"]) if "calibration" in document else None,
            unstationary=_names(document.get("unstationary", []), "unstationary"),
        )


def replace_file(target: Path, content: bytes) -> None:
    """Replace a file, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    if not target.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    draft = target.with_name(f".{target.name}.{os.getpid()}.draft")
    try:
        draft.write_bytes(content)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def format_timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, to the second: two of them sort as their times do."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _finite(numbers: NDArray[Any]) -> NDArray[np.float64]:
    flat = np.asarray(numbers, dtype=np.float64).ravel()
    return flat[np.isfinite(flat)]


def _feature(column: NDArray[Any]) -> StreamSketch:
    if column.dtype.kind in "biuf":
        finite = _finite(column)
        sketch = ExponentialHistogram.from_values(finite)
        return StreamSketch(exponential=sketch, missing=int(column.size - finite.size))
    # NaN is the one value that differs from itself.
    present = [str(value) for value in column.tolist() if value is not None and value == value]
    return StreamSketch(categories=Categories(counts=Counter(present)), missing=column.size - len(present))


def _mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProfileError(f"{where}: not an object")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ProfileError(f"{where}: not a text")
    return value


def _names(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ProfileError(f"{where}: not a list")
    return tuple(sorted({_text(name, f"{where}[{place}]") for place, name in enumerate(value)}))


def _read_stream_sketch(value: object, where: str) -> StreamSketch:
    return _read(StreamSketch.from_dict, value, where)


def _calibration(value: object) -> Calibration:
    return _read(Calibration.from_dict, value, "calibration")


def _read(from_dict: Callable[[dict[str, Any]], Part], value: object, where: str) -> Part:
    document = _mapping(value, where)
    try:
        return from_dict(document)
    except KeyError as error:
        raise ProfileError(f"{where}: {error} is missing") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ProfileError(f"{where}: {error}") from error
