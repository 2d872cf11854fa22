"""Tracks how far a model version is: up to when its senders have sent everything, and which streams they send.

**Watermark.** Each sender has a watermark of its own, the largest event time of its points, since each has its own
clock and its own backlog. A pane waits for the sender that is furthest behind, unless that is more than `idle_after`
behind the one that is furthest ahead, or has sent nothing for `idle_after`: a replica that died, a clock that is wrong
or a backlog of minutes holds up nobody for longer than that. What such a sender sends for closed panes is late, and
still counted.

Source: Apache Flink, event time and watermarks (idleness, watermark alignment).

**Presence.** A stream may be sent no longer although its model has predictions. Of each stream it counts how often it
was sent while the model was active, and its longest silence. A silence is an absence when chance and habit do not
explain it: it lasts `ABSENT_AFTER_S`, `EXPECTED` panes and as many values were to be expected in it by the rate before,
and it is `LONGER` times the longest silence so far, in active panes and in predictions. A rate of n panes that is right
leaves a chance of (1 + 20/n)^-n for the first two, at `MIN_PANES` less than 2·10⁻⁵ a silence, and what comes in bursts
is known by its longest silence. Silence of the whole model is none of a stream: only panes in which the model was
active are counted.

An absence that ends was an outage, and is no habit; of two, the shorter one is, so that what is sent once a day is
missed twice and no more.

**Introduction.** The first predictions of a new version are added up until they are held against the version before.

**Clock.** Our own time never goes back, whatever the machine's clock does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import ModelKey

ABSENT_AFTER_S: Final = 600.0
"""The shortest silence that is an absence, in event time."""
MIN_PANES: Final = 10
"""Panes with values before a stream is missed at all."""
EXPECTED: Final = 20.0
LONGER: Final = 3


INTRODUCTION: Final = 1_000
"""Predictions of a new version that are held against the version before."""


@dataclass(slots=True, kw_only=True)
class VersionIntroduction:
    """The values of a new model version's first panes by stream, to be compared with the version before."""

    before: ModelKey
    """The version before."""
    predictions: int = 0
    sketches: dict[str, StreamSketch] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether there are enough first predictions of a new version to compare it with the version before."""
        return self.predictions >= INTRODUCTION

    def add(self, sketches: Mapping[str, StreamSketch], predictions: int) -> None:
        """Adds the values of a closed pane to the first values of a new model version."""
        self.predictions += predictions
        for name, sketch in sketches.items():
            self.sketches[name] = self.sketches.get(name, StreamSketch()).merge(sketch)


class StreamSilence(NamedTuple):
    """The panes and predictions of a model during which one of its streams had no values."""

    panes: int = 0
    """Panes in which the model was active."""
    predictions: int = 0

    def reaches(self, other: StreamSilence, factor: int) -> bool:
        """Returns whether a stream's silence is at least `factor` times as long as another silence."""
        return self.panes >= factor * other.panes and self.predictions >= factor * other.predictions


_NO_SILENCE: Final = StreamSilence()


class StreamAbsence(NamedTuple):
    """The absence of a stream that is no longer sent although its model has predictions."""

    since_ns: int
    """End of the last pane with values, Unix nanoseconds."""
    expected: int
    """Values that were to be expected since then, by the rate before."""
    predictions: int
    """Predictions of the model since then."""


class StreamPresence(NamedTuple):
    """When, and how regularly, a stream was sent while its model had predictions."""

    last_ns: int
    """End of the last pane with values, Unix nanoseconds."""
    values: int = 0
    panes: int = 0
    """Panes with values."""
    active: StreamSilence = StreamSilence()
    """The panes and predictions of the model from the first to the last pane with values, absences left out."""
    silence: StreamSilence = StreamSilence()
    """The panes and predictions of the model since."""
    longest: StreamSilence = StreamSilence()
    """The longest silence that was no absence."""
    outage: StreamSilence = StreamSilence()
    """The longest absence."""

    def add(self, values: int, predictions: int, end_ns: int) -> StreamPresence:
        """Records whether a pane has values of the stream.

        Args:
            values: Of the stream.
            predictions: Of the model; 0 if it was not active.
            end_ns: End of the pane, Unix nanoseconds.
        """
        if not values:
            panes, total = self.silence
            return self._replace(silence=StreamSilence(panes + 1, total + predictions)) if predictions else self
        _, total, panes, (active_panes, active_predictions), pause, longest, outage = self
        if pause.panes and self.find_absence(end_ns) is None:
            longest = max(longest, pause)
        elif pause.panes:
            longest, outage, pause = max(longest, min(outage, pause)), max(outage, pause), _NO_SILENCE
        active = StreamSilence(active_panes + pause.panes + 1, active_predictions + pause.predictions + predictions)
        return StreamPresence(end_ns, total + values, panes + 1, active, _NO_SILENCE, longest, outage)

    def find_absence(self, end_ns: int) -> StreamAbsence | None:
        """Returns the stream's absence up to `end_ns`; None if it is sent, or its silence means nothing."""
        if not self.silence.panes:
            return None
        is_long = end_ns - self.last_ns >= ABSENT_AFTER_S * 1e9 and self.silence.reaches(self.longest, LONGER)
        if not is_long or self.panes < MIN_PANES:
            return None
        panes = self.silence.panes * self.panes / self.active.panes
        values = self.silence.predictions * self.values / max(self.active.predictions, 1)
        if min(panes, values) < EXPECTED:
            return None
        return StreamAbsence(self.last_ns, round(values), self.silence.predictions)


def update_presences(
    presences: Mapping[str, StreamPresence],
    streams: Iterable[str],
    totals: Mapping[str, int],
    activity: int,
    end_ns: int,
) -> tuple[dict[str, StreamPresence], dict[str, StreamAbsence]]:
    """Updates by a pane when each stream of a model was sent; returns the presences, and the streams no longer sent.

    Args:
        presences: By stream, what was recorded before.
        streams: Those that the model has.
        totals: The number of values of those in the pane, by stream.
        activity: Predictions of the model in the pane, or calls where it has no predictions.
        end_ns: End of the pane.
    """
    updated: dict[str, StreamPresence] = {}
    silent: list[str] = []
    for name in dict.fromkeys((*streams, *totals)):
        values = totals.get(name, 0)
        updated[name] = (presences.get(name) or StreamPresence(end_ns)).add(values, activity, end_ns)
        if not values:
            silent.append(name)
    absences = {name: updated[name].find_absence(end_ns) for name in silent if activity}
    return updated, {name: absence for name, absence in absences.items() if absence is not None}


@dataclass(slots=True, kw_only=True)
class ModelProgress:
    """The stored progress of one model version: up to which time its panes are closed."""

    model: ModelKey
    received_ns: int
    """When its last point was received, by our clock."""
    watermark_ns: int = 0
    """The largest event time of its points."""
    closed_ns: int = 0
    """Panes up to here are closed, and points for them are late: counted, and no evidence."""
    first_ns: int = 0
    """Start of the first pane with points."""
    last_ns: int = 0
    """End of the last pane with points."""
    predictions: int = 0
    late_predictions: int = 0
    """The predictions that came after their pane had closed; `predictions` has them too."""
    introduction: VersionIntroduction | None = None
    """Its first predictions, until they are held against the version before; None if there is none."""


@dataclass(slots=True, kw_only=True)
class SenderProgress:
    """The stored progress of one sender of one model version: the latest event time of its data points."""

    model: ModelKey
    sender: str
    watermark_ns: int
    """The largest event time of its points."""
    received_ns: int
    """When its last point was received, by our clock."""


@dataclass(slots=True)
class SenderWatermarks:
    """The watermarks of the active senders of one model version.

    Memory: one record a sender, for `idle_after`.
    """

    model: ModelKey
    idle_after_ns: int
    senders: dict[str, SenderProgress] = field(default_factory=dict)

    def add_point(self, sender: str, time_ns: int, now_ns: int) -> None:
        """Records the event time of a sender's data point that was received now."""
        progress = self.senders.get(sender)
        if progress is None:
            self.senders[sender] = SenderProgress(
                model=self.model, sender=sender, watermark_ns=time_ns, received_ns=now_ns
            )
            return
        progress.watermark_ns = max(progress.watermark_ns, time_ns)
        progress.received_ns = now_ns

    def remove_idle(self, now_ns: int, resumed_ns: int) -> Iterator[str]:
        """Removes the senders that sent nothing for `idle_after` while this process ran, and yields them."""
        limit_ns = now_ns - self.idle_after_ns
        if resumed_ns > limit_ns:
            return
        for sender in [name for name, progress in self.senders.items() if progress.received_ns <= limit_ns]:
            del self.senders[sender]
            yield sender

    def oldest_received_ns(self) -> int | None:
        """Returns when the longest silent active sender sent last, by our clock; None without any."""
        return min([progress.received_ns for progress in self.senders.values()], default=None)

    def compute_watermark(self, default_ns: int) -> int:
        """Returns the common watermark of all senders, Unix nanoseconds; `default_ns` where all are idle."""
        if not self.senders:
            return default_ns
        times = [progress.watermark_ns for progress in self.senders.values()]
        return max(min(times), max(times) - self.idle_after_ns)


MAX_STEP_NS: Final = 60_000_000_000
"""A step of the clock forward by more than this takes back what a step back was corrected by."""


class SteadyClock:
    """A clock that never goes back, even where the clock that it reads is set back.

    A correction of the machine's clock must not change what is judged: data seems to come from the future, nothing
    seems to be silent. The time since the last reading is all that a step back costs; a later step forward ends it.

    Runs on: one thread. `clock_ns` returns Unix nanoseconds.
    """

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._last_ns = 0
        self._offset_ns = 0
        """By how much it is ahead of the clock that it reads."""

    def __call__(self) -> int:
        """Returns the time in Unix nanoseconds, never less than it returned before."""
        now_ns = self._clock_ns() + self._offset_ns
        step_ns = now_ns - self._last_ns
        if step_ns < 0:
            self._offset_ns -= step_ns
            now_ns = self._last_ns
        elif self._offset_ns and step_ns > MAX_STEP_NS:
            returned_ns = min(self._offset_ns, step_ns)
            self._offset_ns -= returned_ns
            now_ns -= returned_ns
        self._last_ns = now_ns
        return now_ns
