"""Runs a model over data and profiles inputs and outputs, by the very code that profiles them in the application.

Each batch is copied by `instrumentation.runtime` and read by `instrumentation.decode` as a live call is: what counts
as a label, a confidence, a missing value or an image's brightness, and what a stream is called, cannot differ. Batches
are as large as the copy takes whole: a live call of more rows is thinned, and here every row counts.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon import semconv
from otel_mlmon.errors import DataError, DependencyMissingError
from otel_mlmon.instrumentation.decode.batching import gather
from otel_mlmon.instrumentation.decode.decoder import Reader
from otel_mlmon.instrumentation.decode.predictions import Predictions
from otel_mlmon.instrumentation.runtime.call import FIELDS, CallTuple, Tensor, image_step
from otel_mlmon.instrumentation.runtime.onnxruntime import patches as onnxruntime
from otel_mlmon.instrumentation.runtime.onnxruntime.call_recorder import CallRecorder
from otel_mlmon.instrumentation.runtime.onnxruntime.copies import (
    MAX_IMAGE_BYTES,
    MAX_INPUT_BYTES,
    MAX_OUTPUT_BYTES,
    MAX_TEXTS,
    CopyCall,
    plan_input,
)
from otel_mlmon.instrumentation.runtime.runtime import Capture
from otel_mlmon.instrumentation.settings import InstrumentationSettings, ModelOptions
from otel_mlmon.reference.calibration import Calibration
from otel_mlmon.reference.profile import Profile, format_timestamp
from otel_mlmon.sketch.categories import Categories
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.stream_sketch import StreamSketch

MAX_BATCH: Final = 1_024
CALLS_A_READ: Final = 256

Feed = Mapping[str, NDArray[Any]]


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A profile, and what was not put into it."""

    profile: Profile
    rows: int
    """Rows that the model was run over."""
    left_out: int
    """Rows at the end that do not fill a batch, where the model takes a fixed number."""


class Model:
    """An ONNX model, loaded.

    Args:
        path: Its file.

    Raises:
        DependencyMissingError: onnxruntime is not installed.
        DataError: It is not a model that onnxruntime can run.
    """

    def __init__(self, path: Path) -> None:
        module = onnxruntime.load()
        if module is None:
            raise DependencyMissingError('A model needs onnxruntime: pip install "otel-mlmon[onnxruntime]"')
        if not path.is_file():
            raise DataError(f"{path}: {'Is a directory' if path.is_dir() else 'No such file'}")
        self._faults = _faults(module)
        self._version = str(module.__version__)
        options = module.SessionOptions()
        options.log_severity_level = 3  # what is wrong is raised; warnings are about speed
        try:
            self._session = module.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except self._faults as error:
            raise DataError(f"{path}: {error}") from error

    @property
    def inputs(self) -> list[Any]:
        """Name, type and shape of each."""
        return list(self._session.get_inputs())

    def profile(
        self,
        feed: Feed,
        *,
        name: str = "",
        options: ModelOptions | None = None,
        truth: Sequence[str | None] | None = None,
        progress: Callable[[int], None] = lambda _: None,
        now: Callable[[], datetime] = _utc_now,
    ) -> Built:
        """Run over all rows and count.

        Args:
            feed: An array for each input, shape (n, …).
            name: What the application calls the model; empty to find it as the application does.
            options: What the application says of it.
            truth: The right label of each row, None where it is not known.
            progress: Told how many rows were done, now and then.
            now: The time of making.

        Raises:
            DataError: The model cannot be run over the data, or never predicts a label that `truth` has.
        """
        rows = min(map(len, feed.values()))
        sink = _Sink()
        capture = Capture(
            sink=sink,
            loads=deque(),
            context_reader=lambda: _no_context,
            model_name=lambda _: name,
            has_output_function=lambda _: False,
        )
        recorder = CallRecorder(capture, runtime_version=self._version)
        said = options or ModelOptions()
        readers: list[Reader] = []
        count = _Count(truth)
        copy_call: CopyCall | None = None
        done = 0
        for batch in self._batches(feed, rows):
            outputs = self._run(batch, done)
            copy_call = copy_call or recorder.attach_copier(self._session, None, batch, outputs)
            copy_call(batch, outputs, done, done + 1)  # calls have the position of their first row for a time
            done += min(map(len, batch.values()))
            if len(sink.queue) >= CALLS_A_READ * FIELDS:
                count.add(_read(sink, readers, said))
                progress(done)
        if sink.queue:
            count.add(_read(sink, readers, said))
        progress(done)
        recorder.close()
        if not readers:
            raise DataError(f"{rows} rows do not fill the one batch that the model takes")
        found = readers[0].model
        profile = Profile(
            model=found.name,
            version=found.version,
            created=format_timestamp(now()),
            streams=count.streams,
            calibration=count.calibration(),
        )
        return Built(profile=profile, rows=done, left_out=rows - done)

    def _run(self, batch: Feed, row: int) -> Sequence[Any]:
        try:
            outputs: Sequence[Any] = self._session.run(None, dict(batch))
        except self._faults as error:
            raise DataError(f"the model cannot be run over the rows from {row} on: {error}") from error
        return outputs

    def _batches(self, feed: Feed, rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        fixed = [node.shape[0] for node in self.inputs if node.shape and isinstance(node.shape[0], int)]
        size = max(fixed) if fixed else min(self._whole(feed), rows)
        for start in range(0, rows - size + 1 if fixed else rows, size):
            yield {name: values[start : start + size] for name, values in feed.items()}

    def _whole(self, feed: Feed) -> int:
        """The most rows of which everything is copied."""
        first = {name: values[:1] for name, values in feed.items()}
        outputs = self._run(first, 0)
        limits = [_input_rows(plan_input(node, first[node.name]), first[node.name]) for node in self.inputs]
        return max(1, min(MAX_BATCH, *limits, *map(_output_rows, outputs)))


def _no_context(_: None) -> None:
    """Of no trace."""


class _Sink:
    """Where calls go: a queue that is read in turn."""

    def __init__(self) -> None:
        self.queue: list[Any] = []
        self.high_water: int = 2 * CALLS_A_READ
        self.max_bytes: int = 1 << 62

    def offer(self, record: CallTuple, size_bytes: int) -> None:  # noqa: ARG002 - the Protocol's
        self.queue.extend(record)

    def take(self, limit: int) -> list[Any]:
        taken = self.queue[: limit * FIELDS]
        del self.queue[: len(taken)]
        return taken

    def drop(self, reason: str) -> None:
        raise DataError(f"a batch could not be copied: {reason}")


class _Count:
    """What the batches said so far."""

    def __init__(self, truth: Sequence[str | None] | None) -> None:
        self.streams: dict[str, StreamSketch] = {}
        self._truth = truth
        self._calibration: Calibration | None = None
        self._met = truth is None
        self._table: dict[str, None] = {}

    def add(self, predictions: Predictions) -> None:
        for stream, sketch in _stream_sketches(predictions):
            known = self.streams.get(stream)
            self.streams[stream] = sketch if known is None else known.merge(sketch)
        if self._truth is not None:
            self._compare(predictions, self._truth)

    def calibration(self) -> Calibration | None:
        """Raises: DataError: There were labels, and none is one that the model predicts."""
        if self._truth is None:
            return None
        if not self._met:
            have = list(dict.fromkeys(label for label in self._truth if label is not None))
            raise DataError(
                f"no label is one that the model predicts: it predicts {_some(list(self._table))}; "
                f"the labels are {_some(have)}"
            )
        return self._calibration

    def _compare(self, predictions: Predictions, truth: Sequence[str | None]) -> None:
        labels, confidences, sizes = predictions.labels, predictions.confidences, predictions.batch_sizes
        self._table.update(dict.fromkeys(labels.table))
        # Rows pair up in calls of which every row has a label and a confidence: a score that is NaN has neither.
        whole = (_per_call(labels.calls, sizes) == sizes) & (_per_call(confidences.calls, sizes) == sizes)
        starts = predictions.started_ns
        rows = [row for call in np.flatnonzero(whole) for row in range(starts[call], starts[call] + sizes[call])]
        codes = labels.codes[whole[labels.calls]].tolist()
        values = confidences.values[whole[confidences.calls]]
        right = [_meant(truth[row], labels.table) for row in rows]
        is_known = np.array([label is not None for label in right], dtype=bool)
        is_right = np.array([labels.table[code] == label for code, label in zip(codes, right, strict=True)], dtype=bool)
        part = Calibration.from_predictions(values[is_known], is_right[is_known])
        self._calibration = part if self._calibration is None else self._calibration.merge(part)
        self._met = self._met or bool(set(right) & set(labels.table))


def _meant(label: str | None, table: Sequence[str]) -> str | None:
    """The label in the model's words: a number that is none of them is the position of one."""
    if label is not None and label not in table and label.isdecimal() and int(label) < len(table):
        return table[int(label)]
    return label


def _per_call(calls: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.bincount(calls, minlength=len(sizes)).astype(np.int64)


def _read(sink: _Sink, readers: list[Reader], said: ModelOptions) -> Predictions:
    (batch,) = gather(sink.take, len(sink.queue), is_suppressed=lambda _: False, pause=lambda: None).batches
    if not readers:
        readers.append(Reader(batch.plan, options=lambda _: said, max_features=InstrumentationSettings().max_features))
    return readers[0].read(batch)


def _stream_sketches(predictions: Predictions) -> Iterator[tuple[str, StreamSketch]]:
    labels, inputs = predictions.labels, predictions.inputs
    if labels.codes.size:
        counts = Counter({labels.table[code]: int(n) for code, n in enumerate(np.bincount(labels.codes)) if n})
        yield semconv.STREAM_LABEL, StreamSketch(categories=Categories(counts=counts))
    if predictions.confidences.values.size:
        histogram = Histogram.from_values(predictions.confidences.values, semconv.CONFIDENCE_BOUNDS)
        yield semconv.STREAM_CONFIDENCE, StreamSketch(explicit={histogram.bounds: histogram})
    for values in predictions.values.values():
        yield semconv.STREAM_VALUE, StreamSketch(exponential=ExponentialHistogram.from_values(values))
    for name, column in inputs.features.items():
        yield _input(name), StreamSketch(exponential=ExponentialHistogram.from_values(column))
    for name, words in inputs.categories.items():
        yield _input(name), StreamSketch(categories=Categories(counts=words))
    for name, missing in inputs.missing.items():
        yield _input(name), StreamSketch(missing=missing)


def _input(feature: str) -> str:
    return f"{semconv.STREAM_INPUT_PREFIX}{feature}"


def _input_rows(tensor: Tensor, row: NDArray[Any]) -> int:
    """Rows of an input that are copied whole."""
    if tensor.layout == "text":
        return MAX_TEXTS // max(row.size, 1)
    if tensor.layout == "rows":
        return MAX_INPUT_BYTES // max(row.nbytes, 1)
    if tensor.layout in {"nchw", "nhwc"}:
        height, width = row.shape[2:] if tensor.layout == "nchw" else row.shape[1:3]
        step = image_step(height, width)
        thin_bytes = row.nbytes // max(height * width, 1) * -(-height // step) * -(-width // step)
        return MAX_IMAGE_BYTES // max(int(thin_bytes), 1)
    return MAX_BATCH


def _output_rows(value: Any) -> int:
    """Rows of an output that are copied whole."""
    if isinstance(value, list):  # ZipMap's dictionaries
        return MAX_OUTPUT_BYTES // (4 * max(len(value[0]), 1)) if value and isinstance(value[0], dict) else MAX_TEXTS
    if not isinstance(value, np.ndarray) or value.dtype.kind in "OU":
        return MAX_TEXTS
    return MAX_OUTPUT_BYTES // max(int(value.nbytes), 1)


def _faults(module: ModuleType) -> tuple[type[Exception], ...]:
    """What onnxruntime raises: they have no base of their own. `ValueError` is for names that it does not know."""
    kinds = vars(module.capi.onnxruntime_pybind11_state).values()
    return (ValueError, *(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)))


def _some(words: Sequence[str], limit: int = 5) -> str:
    return ", ".join(words[:limit]) + (", …" if len(words) > limit else "") or "none"
