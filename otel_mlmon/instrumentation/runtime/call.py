"""OUT Call: one inference call as it was copied on the host's thread.

Callers reuse input buffers and post-process outputs in place, so an array is copied before the host gets it back; what
the copies mean is decided behind, from the plan that every call of a session shares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

Shape: TypeAlias = tuple[int, ...]

Item: TypeAlias = "bytes | tuple[Shape, bytes | tuple[str, ...]] | None"
"""A copied tensor: `bytes`, the whole array in C order, rows of the plan's shape; or the array's true shape and the
part of it that was copied; or None, nothing."""

Side: TypeAlias = "bytes | tuple[Item, ...]"
"""The inputs or outputs of a call: the bytes of a plan's only tensor if it was copied whole, else one item a tensor."""

Layout = Literal["rows", "nchw", "nhwc", "text", "maps", "whole", "shape", "none"]
"""How a tensor is copied: `rows` along its first axis, an image by pixels, strings, ZipMap's dictionaries, all of it,
its shape only, or not at all."""

IMAGE_STEP: Final = 8
SMALL_IMAGE_PIXELS: Final = 64
"""Images less wide or high than this are copied whole."""


def image_step(height: int, width: int) -> int:
    """How many pixels, both ways, one copied pixel stands for."""
    return IMAGE_STEP if min(height, width) >= SMALL_IMAGE_PIXELS else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One input or output of a session."""

    name: str
    layout: Layout
    dtype: str = ""
    """The numpy name of the element type; empty if it has none."""
    row_shape: Shape | None = None
    """The shape without the first axis; None if it differs between calls."""
    keys: tuple[str, ...] = ()
    """The keys of a ZipMap's dictionaries, in order."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SessionInfo:
    """What a session says of itself, read once. Holds no reference to the session but a weak one."""

    given_name: str
    """What the user's `model_name` says; empty if nothing."""
    path: str
    """The model's file; empty if it came as bytes. Never leaves the process."""
    digest: str
    """Hexadecimal; of the ends of a model that came as bytes, else empty."""
    graph_name: str
    version: int
    metadata: dict[str, str]
    provider: str
    runtime_version: str
    providers: tuple[str, ...] = ()
    """All execution providers, in order; the first is `provider`."""
    content: Callable[[], object] | None = None
    """Gives the model's bytes if it came as such and its session is alive."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """What is copied of the calls of one session for one choice of outputs. Equal only to itself."""

    session: SessionInfo
    operation: str
    """A value of `ml.operation.name`."""
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    made: tuple[str, ...] = ()
    """Names of all outputs of the model, copied or not; empty if nobody looked."""


class Call(NamedTuple):
    """One inference call.

    On the host's thread it is written as a bare tuple of this layout, which costs 0.2 µs less than the constructor.
    """

    plan: Plan
    started_ns: int
    """`time.perf_counter_ns` before the call."""
    ended_ns: int
    context: object
    """The OpenTelemetry context at the call, opaque here; None where there was none."""
    inputs: Side
    """Of the inputs of the plan; empty if the call failed."""
    outputs: Side
    error_type: str | None
    """The name of the exception's class; never the exception, which holds the host's frames."""


CallTuple: TypeAlias = "tuple[Plan, int, int, object, Side, Side, str | None]"
FIELDS: Final = len(Call._fields)
"""Of a call, in the buffer."""


class Sink(Protocol):
    """Where calls go: a flat queue that the host's thread may extend while it is neither empty nor long."""

    queue: list[Any]
    """The fields of the calls that wait, `FIELDS` a call. A tuple that is freed at once costs less than one that waits,
    which the garbage collector counts, and comes to look at after 700 of them."""
    high_water: int
    """Below this many calls, and above none, extending needs nothing else."""
    max_bytes: int

    def offer(self, record: CallTuple, size_bytes: int) -> None:
        """Extend with everything that the short way leaves out; or drop, and count it."""

    def drop(self, reason: str) -> None:
        """Count a call that is not recorded."""
