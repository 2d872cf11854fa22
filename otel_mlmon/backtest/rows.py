"""Rows through the processor's steps: counted over the bins of the reference, window by window.

The design effect has to be known before a stream can be in drift, and it is found from the differences between
small blocks. Windows of 1,000 rows would give eight differences, and so a first judgement, only after nine windows.
With the rows at hand the first of them are handed on in panes of `CALIBRATION_PANE` instead: the panes of one
window, of any size, are the same evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from otel_mlmon.backtest.counting import Counter, counter_of
from otel_mlmon.backtest.cutting import Cut
from otel_mlmon.backtest.judge import Judge
from otel_mlmon.backtest.kinds import Choice, confidence_faults
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.window.reference import StreamReference
from otel_mlmon.processor.window.settings import ModelWindowSettings
from otel_mlmon.processor.window.window import Reference, StreamKey, Window
from otel_mlmon.reference.profile import Profile
from otel_mlmon.table.table import Progress, Table
from otel_mlmon.types import ModelKey

CALIBRATION_PANE: Final = 50
"""Rows; the smallest block that the design effect is found from."""
MOST_CALIBRATION_ROWS: Final = 10_000
"""A stream that is not calibrated by then is calibrated by whole windows."""
PROGRESS_WINDOWS: Final = 20


@dataclass(slots=True, kw_only=True)
class RowStream:
    """One column against its reference."""

    key: StreamKey
    column: str
    reference: Reference
    counter: Counter
    is_calibrating: bool = True
    used: int = 0
    """Rows that were handed on for calibration."""

    def window(self, pane_start: int, pane_end: int, cut: Cut) -> Window:
        """The pane of these rows within the window `cut`. A row is a nanosecond, and the first is that of row 0."""
        pane, pane_mean = self.counter.count(pane_start, pane_end), self.counter.mean(pane_start, pane_end)
        is_whole = (pane_start, pane_end) == (cut.start, cut.end)
        return Window(
            stream=self.key,
            start_ns=pane_start + 1,
            end_ns=pane_end + 1,
            reference=self.reference,
            pane=pane,
            pane_mean=pane_mean,
            rolling=pane if is_whole else self.counter.count(cut.start, cut.end),
            rolling_start_ns=cut.start + 1,
            rolling_mean=pane_mean if is_whole else self.counter.mean(cut.start, cut.end),
        )


def row_streams(table: Table, choices: Mapping[str, Choice], profile: Profile) -> list[RowStream]:
    """The columns of `table` that have a reference.

    Args:
        table: The data.
        choices: By column, what it is.
        profile: The references, by stream.

    Raises:
        ConfigurationError: Words where the reference has numbers, confidences beyond 0 and 1; all such faults.
    """
    streams: list[RowStream] = []
    faults: list[str] = []
    settings = ModelWindowSettings(profile=profile)
    for name, choice in choices.items():
        column = table.columns.get(name)
        baseline = StreamReference(stream=choice.stream, settings=settings)
        if choice.kind == "ignore" or column is None or baseline.reference is None or baseline.binning is None:
            continue
        if choice.kind == "confidence":
            faults += confidence_faults(table, column)
        try:
            counter = counter_of(column, baseline.binning, table.place)
        except ConfigurationError as error:
            faults += error.faults
            continue
        key = StreamKey(ModelKey(profile.model, profile.version), choice.stream)
        streams.append(RowStream(key=key, column=name, reference=baseline.reference, counter=counter))
    if faults:
        raise ConfigurationError(*faults)
    return streams


def replay_rows(streams: Sequence[RowStream], cuts: Sequence[Cut], judge: Judge, progress: Progress) -> None:
    """Every window of every stream, in the order of time."""
    for done, cut in enumerate(cuts):
        _calibrate(streams, cut, judge)
        judge.take(cut.index, [stream.window(max(stream.used, cut.start), cut.end, cut) for stream in streams])
        if done % PROGRESS_WINDOWS == 0 or done + 1 == len(cuts):
            progress("judging", done + 1, len(cuts))


def _calibrate(streams: Sequence[RowStream], cut: Cut, judge: Judge) -> None:
    """Use up the first rows of `cut`, all but its last, for the streams that are not calibrated yet."""
    for start in range(cut.start, min(cut.end, MOST_CALIBRATION_ROWS) - CALIBRATION_PANE, CALIBRATION_PANE):
        waiting = [stream for stream in streams if stream.is_calibrating]
        if not waiting:
            return
        part = Cut(index=cut.index, start=start, end=start + CALIBRATION_PANE)
        still = judge.calibrate([stream.window(part.start, part.end, part) for stream in waiting])
        for stream in waiting:
            stream.used, stream.is_calibrating = part.end, stream.key in still
