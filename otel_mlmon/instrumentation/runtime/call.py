"""OUT Call and Load: an inference call, and the load of a model, as copied on the application's thread.

Callers reuse input buffers and post-process outputs in place, so an array is copied before the host gets it back; what
the copies mean is decided on the worker thread, from the plan that all calls of a session share.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

from otel_mlmon.instrumentation.runtime.model_graph import NO_LAZY_GRAPH, LazyModelGraph

Shape: TypeAlias = tuple[int, ...]

Scalar: TypeAlias = "str | float | bool | None"
"""A value of a label, number or feature; whole numbers too."""


class ObservedValues(NamedTuple):
    """The values of one argument of `observe()` for a batch of predictions, a sample of them if it is large."""

    size: int
    """Rows of the batch, copied or not."""
    values: tuple[Scalar, ...]


ObservedItem: TypeAlias = "Scalar | ObservedValues | Mapping[str, Scalar | ObservedValues]"
"""A tensor of the layout `values`, in the place of an `Item`: a value, one a row, or the features by name."""

Item: TypeAlias = "bytes | tuple[Shape, bytes | tuple[str, ...]] | None"
"""A copied tensor: `bytes`, the whole array in C order, rows of the plan's shape; or the array's true shape and the
part of it that was copied; or None, nothing."""

Side: TypeAlias = "bytes | tuple[Item, ...]"
"""The inputs or outputs of a call: the bytes of a plan's only tensor if it was copied whole, else one item a tensor."""

Layout = Literal["rows", "wide", "items", "nchw", "nhwc", "text", "maps", "whole", "shape", "none", "values"]
"""How a tensor is copied: `rows` along its first axis, `wide` rows at a step within each, `items` along its first two
axes of three, an image by pixels, strings, ZipMap's dictionaries, all of it, its shape only, not at all, or Python's
`values`, as `observe()` takes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """Describes one input or output of a model session, and how it is copied."""

    name: str
    layout: Layout
    dtype: str = ""
    """The numpy name of the element type; empty if it has none."""
    row_shape: Shape | None = None
    """The shape without the first axis; None if it differs between calls."""
    keys: tuple[str, ...] = ()
    """The keys of a ZipMap's dictionaries, in order."""
    is_optional: bool = False
    """Whether a call may leave it out."""


UNKNOWN_VERSION: Final = 2**63 - 1
"""The version that onnxruntime reports for a model that has none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SessionInfo:
    """Describes the model that a session runs: its name, file, metadata and execution providers."""

    model_name: str
    """The name that the user gave the model; empty if none."""
    path: str
    """The model's file; empty if it came as bytes. Never leaves the process."""
    graph_name: str
    metadata: dict[str, str]
    provider: str
    """The execution provider; empty if the runtime has none."""
    runtime_version: str
    """Empty if unknown."""
    version: int = UNKNOWN_VERSION
    """The version in the model's file."""
    model_version: str = ""
    """The version that the user's calls report, before any other; empty if none."""
    runtime_name: str = "onnxruntime"
    """The value of `ml.runtime.name`."""
    providers: tuple[str, ...] = ()
    """All execution providers, in order; the first is `provider`."""
    graph: LazyModelGraph = NO_LAZY_GRAPH
    """Returns what the model's file says of its outputs. Runs on: the worker thread; reads files, at the first call."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """Describes which inputs and outputs are copied at the inference calls of one model session."""

    session: SessionInfo
    operation: str
    """A value of `ml.operation.name`."""
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    output_names: tuple[str, ...] = ()
    """Names of all outputs of the model, copied or not; empty if unknown."""
    is_observed: bool = False
    """Whether the calls hold predictions that the host reported itself, by the layout of `OBSERVED_OUTPUTS`."""


OBSERVED_INPUTS: Final = (Tensor(name="features", layout="values"), Tensor(name="unreadable", layout="values"))
"""The inputs of an observed prediction: the mapping of its features, or None; and how many values of each argument
could not be read, or None."""

OBSERVED_OUTPUTS: Final = (
    Tensor(name="label", layout="values"),
    Tensor(name="confidence", layout="values"),
    Tensor(name="value", layout="values"),
    Tensor(name="scores", layout="rows", dtype="float64"),
)
"""The outputs of an observed prediction, each None if it was not given."""


class Call(NamedTuple):
    """One inference call of a model: its times, context, copied inputs and outputs, and error.

    On the host's thread it is written as a bare tuple of this layout, which costs 0.2 µs less than the constructor.
    """

    plan: Plan
    started_ns: int
    """`time.perf_counter_ns` before the call."""
    ended_ns: int
    """Equal to `started_ns` if the duration was not measured."""
    context: object
    """The OpenTelemetry context at the call, opaque here; None where there was none."""
    inputs: Side
    """Copies of the inputs of the plan; empty if the call failed."""
    outputs: Side
    error_type: str | None
    """The name of the exception's class; never the exception, which holds the host's frames."""


CallTuple: TypeAlias = "tuple[Plan, int, int, object, Side, Side, str | None]"
FIELDS: Final = len(Call._fields)
"""Fields of a call in the queue."""

RECORD_BYTES: Final = 400
"""Bytes of a call besides its data and shapes, rounded up: seven references, two integers, two tuples, the headers
of bytes objects; half of it where both sides are bare bytes."""

NUMBER_BYTES: Final = 32
"""Bytes of a Python number, rounded up."""


def estimate_call_bytes(call: Sequence[Any]) -> int:
    """Estimates how many bytes of memory a queued inference call takes."""
    return RECORD_BYTES + _estimate_value_bytes(call[4]) + _estimate_value_bytes(call[5])


def _estimate_value_bytes(value: Any) -> int:
    if isinstance(value, (bytes, str)):
        return len(value)
    if isinstance(value, tuple):
        return sum(map(_estimate_value_bytes, value))
    return sum(map(_estimate_value_bytes, value.values())) if isinstance(value, Mapping) else NUMBER_BYTES


DROP_FAULT: Final = "capture_failed"
"""The reason of a call that is not recorded since copying it failed."""

DROP_OFF: Final = "switched_off"
"""The reason of a call that is not recorded since copying failed too often."""

Context = Callable[[None], object]
"""Returns the OpenTelemetry context of this thread, or its argument where there is none."""


class Sink(Protocol):
    """The Protocol of a queue of inference calls, which the application's threads append to."""

    queue: list[Any]
    """The fields of the calls that wait, `FIELDS` a call. A tuple that is freed at once costs less than one that waits,
    which the garbage collector counts, and comes to look at after 700 of them."""
    high_water: int
    """Queued calls up to which, unless it is empty, the queue may be extended directly, without `offer`."""
    max_bytes: int

    def offer(self, record: CallTuple, size_bytes: int) -> None:
        """Queues an inference call and wakes the worker thread if needed, or drops and counts the call."""

    def drop(self, reason: str) -> None:
        """Counts an inference call that is not recorded, by the reason."""


FileStamp: TypeAlias = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds of a file."""


class Load(NamedTuple):
    """The load of a model into a session: how long it took, from where, and whether it failed."""

    session: SessionInfo | None
    """None if it failed."""
    path: str
    """The model's file; empty if it came as bytes. Never leaves the process."""
    ended_ns: int
    """By `time.perf_counter_ns`."""
    context: object
    """The OpenTelemetry context, opaque here; None where there was none."""
    is_new: bool = True
    """False if only its execution providers changed."""
    duration_s: float | None = None
    """None where the creation of the session was not observed."""
    error_type: str | None = None
    requested: tuple[str, ...] = ()
    """The execution providers asked for, in order; empty if that is not known."""
    stamp: FileStamp | None = None
    """The stamp of the file before it was loaded; None if it was not read then."""


def read_provider_names(providers: Any) -> tuple[str, ...]:
    """Returns the names of execution providers in a session's `providers` argument, which may have options."""
    if not isinstance(providers, Sequence) or isinstance(providers, str):
        return ()
    return tuple(str(entry[0] if isinstance(entry, tuple) and entry else entry) for entry in providers)


def make_output_names_key(output_names: Any) -> tuple[Any, ...] | None:
    """Returns the names of outputs that an inference call asks for, as a tuple; None for all outputs."""
    return tuple(output_names) if output_names else None


def read_model_path(source: object) -> str:
    """Returns a session's `path_or_bytes` argument as a path; empty if the model came as bytes."""
    path = os.fspath(source) if isinstance(source, (str, os.PathLike)) else ""
    return path if isinstance(path, str) else ""


def read_file_stamp(path: str) -> FileStamp | None:
    """Returns the size and the modification time of a file; None if there is no such file."""
    if not path:
        return None
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path costs more than the call
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns
