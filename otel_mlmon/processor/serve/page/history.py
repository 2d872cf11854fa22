"""What was so before: bounded series of each model version, for the pictures over time.

Three spans: an hour, a day, fourteen days, each in slots of its own length. Of several values in a slot the last is
kept of rates and medians, and the largest of tails, error ratios and evidence, so that no incident is averaged away.
A stream without evidence has no entries. Memory: about 25 kB a model version, and 2 kB a stream with evidence.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

SECOND_NS: Final = 10**9
MODEL_COLUMNS: Final = ("rate", "p50", "p95", "p99", "errors", "accuracy")
"""The values of a model; NaN where one is unknown."""
_LAST: Final = frozenset({"rate", "p50", "accuracy"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of time that a picture covers."""

    name: str
    title: str
    length_s: int
    model_slot_s: int
    stream_slot_s: int


SPANS: Final = (
    Span(name="1h", title="1 h", length_s=3_600, model_slot_s=15, stream_slot_s=60),
    Span(name="24h", title="24 h", length_s=86_400, model_slot_s=300, stream_slot_s=1_200),
    Span(name="14d", title="14 d", length_s=14 * 86_400, model_slot_s=3_600, stream_slot_s=4 * 3_600),
)
MAX_SILENT_S: Final = SPANS[-1].length_s
MAX_VERSIONS: Final = 2_000
"""Model versions with a history; of more, the one that was silent longest is dropped."""


@dataclass(slots=True, kw_only=True)
class SlotSeries:
    """Values of several columns in slots of equal length, the oldest of which are dropped."""

    slot_ns: int
    capacity: int
    columns: tuple[str, ...]
    slots: array[int] = field(default_factory=lambda: array("q"))
    values: list[array[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = [array("f") for _ in self.columns]

    def add(self, time_ns: int, values: Iterable[float]) -> None:
        """Adds values at a time; those of a slot before the last are ignored."""
        slot = time_ns // self.slot_ns
        if self.slots and slot < self.slots[-1]:
            return
        if self.slots and slot == self.slots[-1]:
            for name, column, value in zip(self.columns, self.values, values, strict=True):
                column[-1] = value if name in _LAST or not column[-1] > value else column[-1]
            return
        self.slots.append(slot)
        for column, value in zip(self.values, values, strict=True):
            column.append(value)
        if len(self.slots) > self.capacity + 32:
            del self.slots[:32]
            for column in self.values:
                del column[:32]

    def rows(self, since_ns: int) -> list[tuple[int, tuple[float, ...]]]:
        """Returns the time at the end of each slot, Unix nanoseconds, and its values, the oldest first."""
        return [
            ((slot + 1) * self.slot_ns, tuple(column[index] for column in self.values))
            for index, slot in enumerate(self.slots)
            if (slot + 1) * self.slot_ns > since_ns
        ]


@dataclass(slots=True, kw_only=True)
class VersionHistory:
    """The history of one model version."""

    first_ns: int
    last_ns: int = 0
    model: dict[str, SlotSeries] = field(default_factory=dict)
    streams: dict[str, dict[str, SlotSeries]] = field(default_factory=dict)

    def add(self, time_ns: int, values: Sequence[float], evidence: Mapping[str, float]) -> None:
        """Adds what is so at a time: `MODEL_COLUMNS`, and by stream the evidence over the alarm line, in log10."""
        self.last_ns = time_ns
        for span in SPANS:
            series = self.model.setdefault(span.name, _series(span.model_slot_s, span.length_s, MODEL_COLUMNS))
            series.add(time_ns, values)
        for name, ratio in evidence.items():
            entries = self.streams.setdefault(name, {})
            for span in SPANS:
                entries.setdefault(span.name, _series(span.stream_slot_s, span.length_s, ("ratio",))).add(
                    time_ns, (ratio,)
                )


SETTLING_NS: Final = 60 * 10**9
"""What is there so soon after the history began may have been there long before."""


class History:
    """The histories of all model versions, by the id of the model and by version.

    Runs on: `add` on the thread that publishes; everything else on any.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: dict[tuple[str, str], VersionHistory] = {}
        self._begin_ns = 0

    def add(
        self, model: str, version: str, time_ns: int, values: Sequence[float], evidence: Mapping[str, float]
    ) -> None:
        """Adds what is so of a model version at a time; what is not newer than before is ignored.

        Args:
            model: Its id.
            version: Its version.
            time_ns: Unix nanoseconds; 0 before its first pane.
            values: `MODEL_COLUMNS`; NaN where one is unknown.
            evidence: By stream with evidence: over the alarm line, in log10.
        """
        with self._lock:
            history = self._versions.get((model, version))
            if not time_ns or (history is not None and time_ns <= history.last_ns):
                return
            if history is None:
                history = self._versions[model, version] = VersionHistory(first_ns=time_ns)
                self._begin_ns = self._begin_ns or time_ns
                self._drop_silent(time_ns)
            history.add(time_ns, values, evidence)

    def first_ns(self, model: str, version: str) -> int:
        """Returns when a model version was first seen, Unix nanoseconds; 0 if that is unknown.

        Of what was there in the first minute of the history, as after a restart, it is unknown when it began.
        """
        history = self._versions.get((model, version))
        is_known = history is not None and history.first_ns >= self._begin_ns + SETTLING_NS
        return history.first_ns if history is not None and is_known else 0

    def model_rows(self, model: str, version: str, span: Span) -> list[tuple[int, tuple[float, ...]]]:
        """Returns times and `MODEL_COLUMNS` of a model version."""
        with self._lock:
            history = self._versions.get((model, version))
            if history is None or span.name not in history.model:
                return []
            return history.model[span.name].rows(history.last_ns - span.length_s * SECOND_NS)

    def stream_rows(self, model: str, version: str, stream: str, span: Span) -> list[tuple[int, float]]:
        """Returns times and the evidence over the alarm line, in log10, of one stream; slots without any are absent."""
        with self._lock:
            history = self._versions.get((model, version))
            series = history.streams.get(stream, {}).get(span.name) if history is not None else None
            if history is None or series is None:
                return []
            rows = series.rows(history.last_ns - span.length_s * SECOND_NS)
            return [(time_ns, values[0]) for time_ns, values in rows]

    def _drop_silent(self, now_ns: int) -> None:
        """Makes room when a version is added."""
        silent_ns = now_ns - MAX_SILENT_S * SECOND_NS
        for key in [key for key, history in self._versions.items() if 0 < history.last_ns < silent_ns]:
            del self._versions[key]
        while len(self._versions) > MAX_VERSIONS:
            oldest = min(self._versions, key=lambda key: self._versions[key].last_ns or now_ns)
            del self._versions[oldest]


def _series(slot_s: int, length_s: int, columns: tuple[str, ...]) -> SlotSeries:
    return SlotSeries(slot_ns=slot_s * SECOND_NS, capacity=length_s // slot_s, columns=columns)
