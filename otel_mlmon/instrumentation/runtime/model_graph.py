"""OUT ModelGraph: how a model computes each of its outputs, as its file says, and a digest of the file.

A runtime that can read its models' files gives it to the worker thread through `SessionInfo.graph`. What a runtime
cannot read is a graph without outputs, with a word that says why: then names, shapes and values have to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from otel_mlmon.guard import guard

STAGE: Final = "model_graph"

OutputRole = Literal[
    "probabilities",
    "log_probabilities",
    "sigmoid",
    "class_scores",
    "label",
    "top_k_scores",
    "top_k_labels",
    "detections",
    "values",
    "unit_vector",
    "weights",
    "state",
    "linear",
    "counts",
    "input",
    "other",
    "unknown",
]  # fmt: skip
"""How an output is computed.

`probabilities`: normalised along `axis`, by a softmax for instance; `log_probabilities`: their logarithms. `sigmoid`:
each number a probability of its own. `class_scores`: one number a class of a classifier, of no certain scale. `label`:
the class, the greatest of scores or what a classifier says. `top_k_scores` and `top_k_labels`: the greatest scores and
the positions they had. `detections`: what a suppression of overlapping boxes left. `values`: numbers of a regression, a
projection or a distance. `unit_vector`: a vector of length 1. `weights`: normalised, but the model itself multiplies
other numbers with it, as with attention or a choice of experts. `state`: the state of a recurrent network, fed back by
the host. `linear`: a last layer without activation, which may be logits, values or an embedding. `counts`: sizes or
positions. `input`: an input of the model, unchanged. `other`: computed otherwise, by `operator`. `unknown`: not in the
file, or not understood.
"""

GraphState = Literal["read", "ort_format", "unreadable", "missing", "too_large", "not_attempted"]
"""How far a model's file was read.

`read`: the outputs are known. `ort_format`: a format without the nodes. `unreadable`: no ONNX, encrypted or truncated.
`missing`: the file is gone, or is another one than was loaded. `too_large`: reading it takes longer than is allowed.
`not_attempted`: the runtime reads no files.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOrigin:
    """Describes how a model computes one output, for example by a softmax, as its file says."""

    role: OutputRole = "unknown"
    operator: str = ""
    """The operator that decides the role, by the name that the file gives it, such as `Softmax`; empty if unknown."""
    axis: int | None = None
    """The axis of the output, 0 or above, along which the classes lie; None if there is none, or it is lost."""
    rank: int | None = None
    """The number of the output's axes as the file declares them."""
    width: int = 0
    """The size of its last axis as the file declares it; 0 if it differs between calls or is unknown."""
    source_role: OutputRole = "unknown"
    """For `label`, `top_k_scores` and `top_k_labels`: the role of the scores that the choice was made of."""
    is_partial: bool = False
    """Whether only some of the classes are left, such as the probability of the second of two."""
    is_quantised: bool = False
    """Whether the numbers lie on a grid of 8 or 16 bits, so that probabilities need not sum to 1."""
    labels: tuple[str, ...] = ()
    """The class names that the file holds, in the order of the scores; of a `label` all that it can say."""
    companion: str = ""
    """The output that belongs to this one: of TopK each other; of a label its scores, and of scores their label."""
    scale: float = 1.0
    """The number that an integer of the output stands for is (integer - `zero_point`) · `scale`."""
    zero_point: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelGraph:
    """Describes how a model computes its outputs, as its file says."""

    state: GraphState
    outputs: Mapping[str, OutputOrigin] = field(default_factory=dict)
    """By the output's name; outputs that are not in it are unknown."""
    digest: str = ""
    """SHA-256 in hexadecimal of the model's content, of a large one of parts of it; empty if it could not be read."""
    is_digest_complete: bool = False
    """Whether the digest is that of all bytes of the model's one file."""
    producer: str = ""
    """The tool that wrote the model, such as `pytorch` or `skl2onnx`; empty if unknown."""


class LazyModelGraph:
    """The description of a model's graph, which is read from its file at the first use.

    Args:
        read: Reads it. Runs on: the worker thread.
    """

    def __init__(self, read: Callable[[], ModelGraph]) -> None:
        self._read = read
        self.known: ModelGraph | None = None
        """The graph, once it was read; never read by this, so that the host's thread may ask."""

    def __call__(self) -> ModelGraph:
        """Returns the description of the model's graph; reads the model's file at the first call."""
        if self.known is None:
            graph = ModelGraph(state="unreadable")
            with guard(STAGE):
                graph = self._read()
            self.known = graph
        return self.known


NO_GRAPH: Final = ModelGraph(state="not_attempted")
"""The graph of a model whose runtime reads no files."""

NO_LAZY_GRAPH: Final = LazyModelGraph(lambda: NO_GRAPH)
NO_LAZY_GRAPH.known = NO_GRAPH

NO_ORIGIN: Final = OutputOrigin()
"""The origin of an output that is not in the file."""
