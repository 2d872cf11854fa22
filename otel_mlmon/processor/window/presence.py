"""Notices that a stream is no longer sent although its model has predictions.

Of each stream it counts how often it was sent while the model was active, and its longest silence. A silence is an
absence when chance and habit do not explain it: it lasts `ABSENT_AFTER_S`, `EXPECTED` panes and as many values were to
be expected in it by the rate before, and it is `LONGER` times the longest silence so far, in active panes and in
predictions. A rate of n panes that is right leaves a chance of (1 + 20/n)^-n for the first two, at `MIN_PANES` less
than 2·10⁻⁵ a silence, and what comes in bursts is known by its longest silence. Silence of the whole model is none of a
stream: only panes in which the model was active are counted.

An absence that ends was an outage, and is no habit; of two, the shorter one is, so that what is sent once a day is
missed twice and no more.
"""

from __future__ import annotations

from typing import Final, NamedTuple

ABSENT_AFTER_S: Final = 600.0
"""The shortest silence that is an absence, in event time."""
MIN_PANES: Final = 10
"""Panes with values before a stream is missed at all."""
EXPECTED: Final = 20.0
LONGER: Final = 3


class Silence(NamedTuple):
    """Counts how much a model did while one of its streams had no values."""

    panes: int = 0
    """Panes in which the model was active."""
    predictions: int = 0

    def reaches(self, other: Silence, factor: int) -> bool:
        """Whether it is at least `factor` times as long as another one, by either count."""
        return self.panes >= factor * other.panes and self.predictions >= factor * other.predictions


class Absence(NamedTuple):
    """Describes a stream that is no longer sent."""

    since_ns: int
    """End of the last pane with values, Unix nanoseconds."""
    expected: int
    """Values that were to be expected since then, by the rate before."""
    predictions: int
    """Predictions of the model since then."""


class StreamPresence(NamedTuple):
    """Holds when and how often a stream was sent while its model was active."""

    last_ns: int
    """End of the last pane with values, Unix nanoseconds."""
    values: int = 0
    panes: int = 0
    """Panes with values."""
    active: Silence = Silence()
    """What the model did from the first to the last pane with values, absences left out."""
    silence: Silence = Silence()
    """What it did since."""
    longest: Silence = Silence()
    """The longest silence that was no absence."""
    outage: Silence = Silence()
    """The longest absence."""

    def add(self, values: int, predictions: int, end_ns: int) -> StreamPresence:
        """Adds a pane.

        Args:
            values: Of the stream.
            predictions: Of the model; 0 if it was not active.
            end_ns: End of the pane, Unix nanoseconds.
        """
        if not values:
            panes, total = self.silence
            return self._replace(silence=Silence(panes + 1, total + predictions)) if predictions else self
        longest, outage, pause = self.longest, self.outage, self.silence
        if self.absence(end_ns) is None:
            longest = max(longest, self.silence)
        else:
            longest, outage, pause = max(longest, min(outage, self.silence)), max(outage, self.silence), Silence()
        active = Silence(self.active.panes + pause.panes + 1, self.active.predictions + pause.predictions + predictions)
        return StreamPresence(end_ns, self.values + values, self.panes + 1, active, Silence(), longest, outage)

    def absence(self, end_ns: int) -> Absence | None:
        """Returns the absence that lasts until `end_ns`; None if the stream is sent, or its silence means nothing."""
        is_long = end_ns - self.last_ns >= ABSENT_AFTER_S * 1e9 and self.silence.reaches(self.longest, LONGER)
        if not is_long or self.panes < MIN_PANES:
            return None
        panes = self.silence.panes * self.panes / self.active.panes
        values = self.silence.predictions * self.values / max(self.active.predictions, 1)
        if min(panes, values) < EXPECTED:
            return None
        return Absence(self.last_ns, round(values), self.silence.predictions)
