"""Builds the reference profile of an ONNX model by running the model on data.

Inputs and outputs are copied by `instrumentation.runtime` and decoded by `instrumentation.decode`, as live calls are:
labels, confidences, missing values, the brightness of an image and the names of streams cannot differ between the
reference and production. A live call that is too large is copied in part; here batches are small enough that every row
is copied.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon import semconv, streams
from otel_mlmon.errors import DataError, DependencyMissingError
from otel_mlmon.instrumentation.decode.batch import take_call_batches
from otel_mlmon.instrumentation.decode.decoder import TensorDecoder, make_model_vocabularies
from otel_mlmon.instrumentation.decode.predictions import Predictions
from otel_mlmon.instrumentation.runtime.call import FIELDS, CallTuple, Tensor
from otel_mlmon.instrumentation.runtime.input_sample import count_sampled_pixels
from otel_mlmon.instrumentation.runtime.onnxruntime import patches as onnxruntime
from otel_mlmon.instrumentation.runtime.onnxruntime.call_recorder import CallRecorder
from otel_mlmon.instrumentation.runtime.onnxruntime.copies import (
    MAX_IMAGE_BYTES,
    MAX_INPUT_BYTES,
    MAX_OUTPUT_BYTES,
    MAX_TEXTS,
    MAX_WIDE_ROWS,
    CopyCall,
)
from otel_mlmon.instrumentation.runtime.onnxruntime.plans import plan_input
from otel_mlmon.instrumentation.runtime.runtime import Capture
from otel_mlmon.instrumentation.settings import InstrumentationSettings, ModelOptions
from otel_mlmon.reference.calibration import Calibration, resolve_true_label, split_labelled_rows
from otel_mlmon.reference.profile import Profile, format_timestamp, read_utc_time
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.stream_sketch import CategoryCounts, StreamSketch
from otel_mlmon.types import Floats
from otel_mlmon.vocabulary import Admit, TextBuckets, Vocabulary

MAX_BATCH_ROWS: Final = 1_024
MAX_BLOCKS: Final = 64
"""Blocks of successive rows that are profiled for themselves, if the rows are in order."""
MIN_BLOCK_ROWS: Final = 50
CALLS_A_BATCH: Final = 256
"""Calls that are decoded together."""

Feed = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltReference:
    """A reference profile that was built by running a model, and the number of rows that it is built from."""

    profile: Profile
    rows: int
    """Rows that the model was run on."""
    skipped_rows: int
    """Rows at the end that do not fill a batch, if the model takes batches of a fixed size."""
    blocks: tuple[Mapping[str, StreamSketch], ...] = ()
    """The values of successive blocks of rows by stream, if the rows are in the order in which they came."""


class OnnxModel:
    """An ONNX model that can be run on data to build its reference profile.

    Args:
        path: The file of the model.

    Raises:
        DependencyMissingError: onnxruntime is not installed.
        DataError: onnxruntime cannot load the model.
    """

    def __init__(self, path: Path) -> None:
        module = onnxruntime.import_onnxruntime()
        if module is None:
            raise DependencyMissingError('A model needs onnxruntime: pip install "otel-mlmon[onnxruntime]"')
        if not path.is_file():
            raise DataError(f"{path}: {'Is a directory' if path.is_dir() else 'No such file'}")
        self._errors = _list_runtime_errors(module)
        self._version = str(module.__version__)
        options = module.SessionOptions()
        options.log_severity_level = 3  # errors are raised, and warnings are about speed
        try:
            self._session = module.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except self._errors as error:
            raise DataError(f"{path}: {error}") from error

    @property
    def model_inputs(self) -> list[Any]:
        """The model's inputs, each with its name, type and shape."""
        return list(self._session.get_inputs())

    def build_profile(
        self,
        feed: Feed,
        *,
        name: str = "",
        options: ModelOptions | None = None,
        truth: Sequence[str | None] | None = None,
        max_labels: int = InstrumentationSettings().max_labels,
        is_ordered: bool = False,
        progress: Callable[[int], None] = lambda _: None,
        now: Callable[[], datetime] = read_utc_time,
    ) -> BuiltReference:
        """Runs the model on all rows of the data, and builds its reference profile from inputs and predictions.

        Args:
            feed: An array for each input, shape (n, …).
            name: The name of the model in the application; empty to find it as the application does.
            options: The options of the model in the application.
            truth: The true label of each row, None where it is unknown.
            max_labels: The option of the same name in the application.
            is_ordered: Whether the rows are in the order in which they came.
            progress: Called with the number of rows that are done.
            now: The clock.

        Raises:
            DataError: The model cannot be run on the data, or never predicts a label that `truth` has.
        """
        rows = min(map(len, feed.values()))
        calls = _CallList()
        capture = Capture(
            sink=calls,
            loads=deque(),
            context_reader=lambda: _read_no_context,
            model_name=lambda _: name,
            has_output_function=lambda _: False,
        )
        recorder = CallRecorder(capture, runtime_version=self._version)
        options = options or ModelOptions()
        decoders: list[TensorDecoder] = []
        counts = _StreamCounts(truth, text_key=options.text_key or "", admit=_make_name_chooser(max_labels, options))
        copy_call: CopyCall | None = None
        done = 0
        block_rows = max(MIN_BLOCK_ROWS, -(-rows // MAX_BLOCKS)) if is_ordered else rows
        for batch in self._split_into_batches(feed, rows, block_rows):
            if is_ordered and done // block_rows >= len(counts.blocks):
                if calls.queue:
                    counts.add_predictions(_decode_calls(calls, decoders, options))
                counts.blocks.append({})
            outputs = self._run_session(batch, done)
            copy_call = copy_call or recorder.attach_run_copier(self._session, None, batch, outputs)
            size = min(map(len, batch.values()))
            for part in split_labelled_rows(outputs, size) if truth is not None else (slice(0, size),):
                row = done + part.start
                inputs = {name: values[part] for name, values in batch.items()}
                copy_call(inputs, [value[part] for value in outputs], row, row + 1)  # its time is its first row
                if len(calls.queue) >= CALLS_A_BATCH * FIELDS:
                    counts.add_predictions(_decode_calls(calls, decoders, options))
                    progress(done)
            done += size
        if calls.queue:
            counts.add_predictions(_decode_calls(calls, decoders, options))
        progress(done)
        recorder.close()
        if not decoders:
            raise DataError(f"{rows} rows do not fill the one batch that the model takes")
        model = decoders[0].model
        profile = Profile(
            model=model.name,
            version=model.version,
            created=format_timestamp(now()),
            streams={
                stream: _name_categories(sketch, max_labels, TextBuckets(key=options.text_key or "", model=model.name))
                for stream, sketch in counts.streams.items()
            },
            calibration=counts.build_calibration(),
        )
        return BuiltReference(profile=profile, rows=done, skipped_rows=rows - done, blocks=tuple(counts.blocks))

    def _run_session(self, batch: Feed, row: int) -> Sequence[Any]:
        try:
            outputs: Sequence[Any] = self._session.run(None, dict(batch))
        except self._errors as error:
            raise DataError(f"the model cannot be run on the rows from {row} on: {error}") from error
        return outputs

    def _split_into_batches(self, feed: Feed, rows: int, block_rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        fixed = [node.shape[0] for node in self.model_inputs if node.shape and isinstance(node.shape[0], int)]
        size = max(fixed) if fixed else min(self._limit_batch_rows(feed), rows, block_rows)
        start = 0
        while start + size <= rows if fixed else start < rows:
            # A batch of another size ends with its block.
            end = start + size if fixed else min(start + size, start - start % block_rows + block_rows, rows)
            yield {name: values[start:end] for name, values in feed.items()}
            start = end

    def _limit_batch_rows(self, feed: Feed) -> int:
        """Returns how many rows a batch may have at most so that all of its inputs are copied in full."""
        first = {name: values[:1] for name, values in feed.items()}
        outputs = self._run_session(first, 0)
        limits = [_limit_input_rows(plan_input(node, first[node.name]), first[node.name]) for node in self.model_inputs]
        return max(1, min(MAX_BATCH_ROWS, *limits, *map(_limit_output_rows, outputs)))


def _make_name_chooser(max_labels: int, options: ModelOptions) -> Admit:
    """Returns the function that decides which labels and categories of a model are counted by name.

    Undeclared ones are named once all are known.
    """
    vocabularies = make_model_vocabularies(max_labels, lambda _: options)

    def admit(
        model: str, head: str, feature: str, counts: Mapping[str, int], declared: Sequence[str]
    ) -> Mapping[str, int]:
        names = options.categories.get(feature, ()) if feature else declared
        return vocabularies.limit_names(model, head, feature, counts, declared) if len(names) > max_labels else counts

    return admit


def _read_no_context(_: None) -> None:
    """Returns no trace context, since building a reference profile is not traced."""


class _CallList:
    """Collects the captured calls of a model in a list until they are decoded."""

    def __init__(self) -> None:
        self.queue: list[Any] = []
        self.high_water: int = 2 * CALLS_A_BATCH
        self.max_bytes: int = 1 << 62

    def offer(self, record: CallTuple, size_bytes: int) -> None:  # noqa: ARG002 - the Protocol's
        self.queue.extend(record)

    def take_calls(self, limit: int) -> list[Any]:
        calls = self.queue[: limit * FIELDS]
        del self.queue[: len(calls)]
        return calls

    def drop(self, reason: str) -> None:
        raise DataError(f"a batch could not be copied: {reason}")


class _StreamCounts:
    """Adds up the predictions and features of all batches, by stream of the reference profile."""

    def __init__(self, truth: Sequence[str | None] | None, *, text_key: str, admit: Admit) -> None:
        self._text_key = text_key
        self._admit = admit
        self.streams: dict[str, StreamSketch] = {}
        self.blocks: list[dict[str, StreamSketch]] = []
        """Those of successive blocks of rows; the last is not full yet."""
        self._truth = truth
        self._calibration: Calibration | None = None
        self._has_match = truth is None
        self._labels: dict[str, None] = {}

    def add_predictions(self, predictions: Predictions) -> None:
        for stream, sketch in _sketch_streams(predictions, self._admit):
            total = self.streams.get(stream)
            self.streams[stream] = sketch if total is None else total.merge(sketch)
            if self.blocks:
                part = self.blocks[-1].get(stream)
                self.blocks[-1][stream] = sketch if part is None else part.merge(sketch)
        if self._truth is not None:
            self._compare_with_labels(predictions, self._truth)

    def build_calibration(self) -> Calibration | None:
        """Returns how often the model was right at each confidence; None without true labels.

        Raises:
            DataError: The model predicts none of the true labels.
        """
        if not self._has_match:
            labels = list(dict.fromkeys(label for label in self._truth or () if label is not None))
            raise DataError(
                f"no label is one that the model predicts: it predicts {_shorten_label_list(list(self._labels))}; "
                f"the labels are {_shorten_label_list(labels)}"
            )
        return self._calibration

    def _compare_with_labels(self, predictions: Predictions, truth: Sequence[str | None]) -> None:
        labels, confidences, sizes = predictions.labels, predictions.confidences, predictions.batch_sizes
        self._labels.update(dict.fromkeys(labels.table))
        # Rows pair up in calls of which every row has a label and a confidence: a score that is NaN has neither.
        is_complete = (_count_rows(labels.calls, sizes) == sizes) & (_count_rows(confidences.calls, sizes) == sizes)
        starts = predictions.started_ns
        rows = [row for call in np.flatnonzero(is_complete) for row in range(starts[call], starts[call] + sizes[call])]
        codes = labels.codes[is_complete[labels.calls]].tolist()
        values = confidences.values[is_complete[confidences.calls]]
        buckets = TextBuckets(key=self._text_key, model=predictions.model.name)
        true_labels = [resolve_true_label(truth[row], labels.table, buckets) for row in rows]
        is_known = np.array([label is not None for label in true_labels], dtype=bool)
        pairs = zip(codes, true_labels, strict=True)
        is_right = np.array([labels.table[code] == label for code, label in pairs], dtype=bool)
        part = Calibration.from_predictions(values[is_known], is_right[is_known])
        self._calibration = part if self._calibration is None else self._calibration.merge(part)
        self._has_match = self._has_match or bool(set(true_labels) & set(labels.table))


def _count_rows(calls: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.bincount(calls, minlength=len(sizes)).astype(np.int64)


def _decode_calls(calls: _CallList, decoders: list[TensorDecoder], options: ModelOptions) -> Predictions:
    (batch,), _ = take_call_batches(
        calls.take_calls, len(calls.queue), is_suppressed=lambda _: False, pause=lambda: None
    )
    if not decoders:
        max_features = InstrumentationSettings().max_features
        decoders.append(TensorDecoder(batch.plan, options=lambda _: options, max_features=max_features))
    return decoders[0].decode_batch(batch)


def _sketch_streams(predictions: Predictions, admit: Admit) -> Iterator[tuple[str, StreamSketch]]:
    yield from _sketch_outputs(predictions, admit)
    inputs = predictions.inputs
    for name, column in inputs.features.items():
        yield _name_input_stream(name), StreamSketch(exponential=ExponentialHistogram.from_values(column))
    for name, categories in inputs.categories.items():
        named = admit(predictions.model.name, "", name, categories, ())
        yield _name_input_stream(name), StreamSketch(categories=CategoryCounts(counts=named))
    for name, missing in inputs.missing.items():
        yield _name_input_stream(name), StreamSketch(missing=missing)


def _sketch_outputs(predictions: Predictions, admit: Admit) -> Iterator[tuple[str, StreamSketch]]:
    for output, head in predictions.heads.items():
        labels, confidences = head.labels, head.confidences.values
        if labels.codes.size:
            counts: Counter[str] = Counter()
            for code, n in enumerate(np.bincount(labels.codes).tolist()):
                counts[labels.table[code]] += n
            named = admit(predictions.model.name, output, "", +counts, labels.declared)
            stream = streams.name_head_stream(semconv.STREAM_LABEL, output)
            yield stream, StreamSketch(categories=CategoryCounts(counts=named))
        if confidences.size:
            yield streams.name_head_stream(semconv.STREAM_CONFIDENCE, output), _sketch_confidences(confidences)
    for output, values in predictions.values.items():
        stream = streams.name_head_stream(semconv.STREAM_VALUE, output)
        yield stream, StreamSketch(exponential=ExponentialHistogram.from_values(values))
    for output, items in predictions.items.items():
        if items.confidences.size:
            yield streams.name_item_stream(output), _sketch_confidences(items.confidences)


def _name_categories(sketch: StreamSketch, max_labels: int, buckets: TextBuckets) -> StreamSketch:
    """Counts undeclared numeric categories as an instrumented application does: in hash buckets if they are many."""
    counts = sketch.categories.counts
    if len(counts) <= max_labels or not all(name.lstrip("-").isdecimal() for name in counts):
        return sketch
    named = Vocabulary(limit=max_labels, buckets=buckets).limit_names(counts)
    return dataclasses.replace(sketch, categories=CategoryCounts(counts=named))


def _sketch_confidences(values: Floats) -> StreamSketch:
    histogram = Histogram.from_values(values, semconv.CONFIDENCE_BOUNDS)
    return StreamSketch(explicit={histogram.bounds: histogram})


def _name_input_stream(feature: str) -> str:
    return f"{semconv.STREAM_INPUT_PREFIX}{feature}"


def _limit_input_rows(tensor: Tensor, row: NDArray[Any]) -> int:
    """Returns how many rows of an input of a model are copied in full at most."""
    if tensor.layout == "text":
        return MAX_TEXTS // max(row.size, 1)
    if tensor.layout == "rows":
        return MAX_INPUT_BYTES // max(row.nbytes, 1)
    if tensor.layout == "wide":
        return MAX_WIDE_ROWS
    if tensor.layout in {"nchw", "nhwc"}:
        height, width = row.shape[2:] if tensor.layout == "nchw" else row.shape[1:3]
        copy_bytes = row.nbytes // max(height * width, 1) * count_sampled_pixels(height, width)
        return MAX_IMAGE_BYTES // max(int(copy_bytes), 1)
    return MAX_BATCH_ROWS


def _limit_output_rows(value: Any) -> int:
    """Returns how many rows of an output of a model are copied in full at most."""
    if isinstance(value, list):  # ZipMap's dictionaries
        return MAX_OUTPUT_BYTES // (4 * max(len(value[0]), 1)) if value and isinstance(value[0], dict) else MAX_TEXTS
    if not isinstance(value, np.ndarray) or value.dtype.kind in "OU":
        return MAX_TEXTS
    return MAX_OUTPUT_BYTES // max(int(value.nbytes), 1)


def _list_runtime_errors(module: ModuleType) -> tuple[type[Exception], ...]:
    """Lists the exception classes of onnxruntime, which have no common base class."""
    values = vars(module.capi.onnxruntime_pybind11_state).values()
    return (ValueError, *(value for value in values if isinstance(value, type) and issubclass(value, Exception)))


def _shorten_label_list(labels: Sequence[str], limit: int = 5) -> str:
    return ", ".join(labels[:limit]) + (", …" if len(labels) > limit else "") or "none"
