"""A reference profile: a versioned JSON document of the sketches of a model's streams.

    {"format": "otel-mlmon.reference", "version": 1,
     "model": {"name": "fraud", "version": "7"}, "created": "2026-01-31T12:00:00Z",
     "streams": {"prediction.label": {"categories": {"ham": 90, "spam": 10}}, "input.age": {"exponential":
     {…}}},
     "calibration": {"right": [0, …, 81], "total": [0, …, 84]}, "unstationary": ["input.age"],
     "design_effects": {"input.age": {"estimate": 3.2, "differences": 48}}}

`calibration` is there if the data had labels, `unstationary` if a processor learned the profile and a stream drifted
meanwhile, `design_effects` if the values were profiled in their order. A profile holds counts, never a row of the
data: of inputs and values buckets only, as what leaves an application, with no extremes, and the sums of the buckets'
middles. Sums are exact, so profiles of parts of the data merge to the profile of all of it, bit for bit.
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
from otel_mlmon.reference.design_effect import DesignEffect
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.stream_sketch import CategoryCounts, StreamSketch
from otel_mlmon.streams import has_hidden_values

Part = TypeVar("Part")

FORMAT: Final = "otel-mlmon.reference"
VERSION: Final = 1
_KEYS: Final = ("format", "version", "model", "created", "streams")
_OPTIONAL_KEYS: Final = ("calibration", "unstationary", "design_effects")


def read_utc_time() -> datetime:
    """Returns the current time, with the time zone UTC."""
    return datetime.now(timezone.utc)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A reference profile: the distributions of all streams of one model version while it works as intended."""

    model: str
    version: str = ""
    """The version of the model; empty if unknown."""
    created: str
    """RFC 3339, UTC."""
    streams: Mapping[str, StreamSketch] = field(default_factory=dict)
    """By stream name, as `semconv` lists them."""
    calibration: Calibration | None = None
    """How often predictions were right, by confidence; None without true labels."""
    unstationary: tuple[str, ...] = ()
    """Streams that drifted while a processor learned them, sorted; comparisons with them may raise false alarms."""

    design_effects: Mapping[str, DesignEffect] = field(default_factory=dict)
    """By stream: by how much its shares vary more than those of independent values; of streams that it is known of."""

    def __post_init__(self) -> None:
        """Removes exact input values from a new profile, so that only bucket counts of them are stored."""
        hidden = {name: sketch.hide_values() for name, sketch in self.streams.items() if has_hidden_values(name)}
        object.__setattr__(self, "streams", {**self.streams, **hidden})

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
        now: Callable[[], datetime] = read_utc_time,
    ) -> Profile:
        """Builds a reference profile from the predictions and features of a model on labelled or unlabelled data.

        Args:
            model: The name of the model.
            version: The version of the model; empty if unknown.
            labels: Predicted labels, one a row.
            confidences: Shape (n,), in [0, 1]; those that are not finite are left out.
            values: Values of a regression output, any shape; those that are not finite are left out.
            features: By name, shape (n,) each. Numbers are profiled as numbers, NaN and infinite ones as missing;
                texts as categories, None and NaN as missing.
            calibration: How often the predictions were right.
            now: The clock.
        """
        streams: dict[str, StreamSketch] = {}
        if labels is not None:
            streams[semconv.STREAM_LABEL] = StreamSketch(categories=CategoryCounts(counts=Counter(map(str, labels))))
        if confidences is not None:
            histogram = Histogram.from_values(_drop_infinite_numbers(confidences), semconv.CONFIDENCE_BOUNDS)
            streams[semconv.STREAM_CONFIDENCE] = StreamSketch(explicit={histogram.bounds: histogram})
        if values is not None:
            sketch = ExponentialHistogram.from_values(_drop_infinite_numbers(values))
            streams[semconv.STREAM_VALUE] = StreamSketch(exponential=sketch)
        for name, column in (features or {}).items():
            streams[f"{semconv.STREAM_INPUT_PREFIX}{name}"] = _sketch_feature(np.asarray(column).ravel())
        return cls(
            model=model, version=version, created=format_timestamp(now()), streams=streams, calibration=calibration
        )

    @classmethod
    def read_file(cls, path: str | os.PathLike[str]) -> Profile:
        """Reads a reference profile from a JSON file.

        Raises:
            ProfileError: The file cannot be read, or is not a profile; names the fault and its place.
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

    def write_file(self, path: str | os.PathLike[str]) -> None:
        """Writes the reference profile to a JSON file, which is replaced atomically.

        Raises:
            OSError: The file cannot be written.
        """
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
        replace_file_content(Path(path), text.encode())

    def merge(self, other: Profile) -> Profile:
        """Returns the reference profile of two data sets together; name, version and time stay those of this one."""
        streams = dict(self.streams)
        for name, sketch in other.streams.items():
            streams[name] = streams[name].merge(sketch) if name in streams else sketch
        calibration = self.calibration or other.calibration
        if self.calibration is not None and other.calibration is not None:
            calibration = self.calibration.merge(other.calibration)
        unstationary = tuple(sorted({*self.unstationary, *other.unstationary}))
        effects = dict(self.design_effects)
        for name, effect in other.design_effects.items():
            # The more cautious of two: a stream may come in bursts in one part of the data only.
            effects[name] = max(effects.get(name, effect), effect)
        return replace(
            self, streams=streams, calibration=calibration, unstationary=unstationary, design_effects=effects
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the reference profile as a JSON object, which `from_dict` reads."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": {"name": self.model, "version": self.version},
            "created": self.created,
            "streams": {name: sketch.to_dict() for name, sketch in sorted(self.streams.items())},
            **({"calibration": self.calibration.to_dict()} if self.calibration is not None else {}),
            **({"unstationary": list(self.unstationary)} if self.unstationary else {}),
            **(
                {"design_effects": {name: effect.to_dict() for name, effect in sorted(self.design_effects.items())}}
                if self.design_effects
                else {}
            ),
        }

    @classmethod
    def from_dict(cls, document: object) -> Profile:
        """Builds a reference profile from the JSON object that its `to_dict` has made.

        Raises:
            ProfileError: It is not a profile, or of a version this release does not know; names the fault and its
                place.
        """
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ProfileError(f"not a reference profile: format is not {FORMAT!r}")
        if document.get("version") != VERSION:
            raise ProfileError(f"version: {document.get('version')!r} is unknown, this release reads {VERSION}")
        wrong = sorted(map(str, set(document) - set(_OPTIONAL_KEYS) ^ set(_KEYS)))
        if wrong:
            raise ProfileError(f"{wrong[0]}: {'missing' if wrong[0] in _KEYS else 'unknown key'}")
        model = _parse_object(document["model"], "model")
        streams = _parse_object(document["streams"], "streams")
        return cls(
            model=_parse_text(model.get("name"), "model.name"),
            version=_parse_text(model.get("version", ""), "model.version"),
            created=_parse_text(document["created"], "created"),
            streams={name: _parse_sketch(part, f"streams[{name!r}]") for name, part in streams.items()},
            calibration=_parse_calibration(document["calibration"]) if "calibration" in document else None,
            unstationary=_parse_names(document.get("unstationary", []), "unstationary"),
            design_effects={
                name: _parse_profile_part(DesignEffect.from_dict, part, f"design_effects[{name!r}]")
                for name, part in _parse_object(document.get("design_effects", {}), "design_effects").items()
            },
        )


def replace_file_content(target: Path, content: bytes) -> None:
    """Replaces the content of a file atomically: a reader sees the old content or the new, never a part.

    Raises:
        OSError: The file cannot be written.
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
    """Formats a time as RFC 3339 in UTC, to the second, so that such texts sort as their times do."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _drop_infinite_numbers(numbers: NDArray[Any]) -> NDArray[np.float64]:
    flat = np.asarray(numbers, dtype=np.float64).ravel()
    return flat[np.isfinite(flat)]


def _sketch_feature(column: NDArray[Any]) -> StreamSketch:
    if column.dtype.kind in "biuf":
        finite = _drop_infinite_numbers(column)
        sketch = ExponentialHistogram.from_values(finite)
        return StreamSketch(exponential=sketch, missing=int(column.size - finite.size))
    # NaN is the one value that differs from itself.
    present = [str(value) for value in column.tolist() if value is not None and value == value]
    return StreamSketch(categories=CategoryCounts(counts=Counter(present)), missing=column.size - len(present))


def _parse_object(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProfileError(f"{place}: not an object")
    return value


def _parse_text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise ProfileError(f"{place}: not a text")
    return value


def _parse_names(value: object, place: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ProfileError(f"{place}: not a list")
    return tuple(sorted({_parse_text(name, f"{place}[{index}]") for index, name in enumerate(value)}))


def _parse_sketch(value: object, place: str) -> StreamSketch:
    return _parse_profile_part(StreamSketch.from_dict, value, place)


def _parse_calibration(value: object) -> Calibration:
    return _parse_profile_part(Calibration.from_dict, value, "calibration")


def _parse_profile_part(from_dict: Callable[[dict[str, Any]], Part], value: object, place: str) -> Part:
    document = _parse_object(value, place)
    try:
        return from_dict(document)
    except KeyError as error:
        raise ProfileError(f"{place}: {error} is missing") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ProfileError(f"{place}: {error}") from error
