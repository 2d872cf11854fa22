"""Decides of which kind a model's output is, such as probabilities or logits, by its file, name, shape and values.

The developer's `ModelOptions.output_kind` comes before all. What the file says of how an output is computed is never
contradicted by values, only completed: a classifier whose last operator is a softmax is one, whatever its rows sum to.
Where it says nothing certain, names, shapes and the first rows decide; where these do not agree either, the output is
reported as values or timed only, and a warning names the line that settles it: a wrong confidence is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.instrumentation.runtime.call import Tensor
from otel_mlmon.instrumentation.runtime.model_graph import NO_ORIGIN, OutputOrigin, OutputRole
from otel_mlmon.types import Floats, OutputKind

MIN_ROWS: Final = 8
"""Rows within [0, 1] that do not sum to 1 needed to infer independent probabilities; fewer may be logits by chance."""

MAX_VALUES: Final = 32
"""Numbers a row that are reported as values where nothing says what they are."""

MAX_CLASS: Final = 31
"""A number of 8 bits above it is taken for a label only where its name or the model's file says so."""

GRID: Final = 512
"""Each of K numbers of an output on a grid of 1/256 is wrong by up to 1/512, so that their sum is by up to K/512."""

TOLERANCE: Final = 1e-3
"""Distance from 0 and 1 that a probability may have, in half precision too; the sum of a row may have twice that."""

_SAFE_NORM: Final = 1e-140
"""Smaller norms are computed with scaled numbers, since their squares underflow."""

_DETECTION: Final = re.compile(r"box|bbox|(^|_)dets?($|_)|detection|anchor")
_NOT_SCORES: Final = re.compile(
    r"box|landmark|coord|mask|anchor|state|(^|_)[hc]n?$|atten|attn|(^|_)weights?($|_)|alignment|(^|_)gat(e|es|ing)($|_)"
    r"|rout(er|ing)|mixture|mixing|allocation|histogram|(^|_)hist($|_)|shares?($|_)|proportion|cumul|(^|_)rgba?($|_)"
)
"""Names of outputs whose numbers are of no classes, even where a softmax or a sigmoid makes them."""

_EMBEDDING: Final = re.compile(r"embed|hidden|pool|feature|latent|vector|encod|component")
_LOGIT_NAME: Final = re.compile(r"logit|score|class|(^|_)cls|prob|label|pred")
_LABEL_NAME: Final = re.compile(r"class|label|pred|(^|_)cls|categor|argmax")
_PROBABILITY_NAME: Final = re.compile(r"prob|sigmoid")
_SCORE_NAME: Final = re.compile(r"prob|sigmoid|score|conf")
_MULTI_NAME: Final = re.compile(r"prob|sigmoid|score|conf|tag|multi")
_VALUE_NAME: Final = re.compile(
    r"variable|regress|value|price|amount|target|count|rate|estimate|quantile|forecast|angle|action|reconstruct|scaled"
    r"|ratio|percent|fraction|offset|depth|dispar|opacity|density|intensity|similarity|(^|_)(xy|iou|alpha|distance)($|_)"
)
_SIZE_NAME: Final = re.compile(r"(^|_)(num|n|len|lengths?|sizes?|shape|offsets?)(_|$)")
_MARGIN_PRODUCERS: Final = frozenset({"skl2onnx", "onnxmltools", "sklearn-onnx"})
"""Tools whose classifiers end in probabilities or in margins, as a support vector machine does, but not in logits."""

_EMBEDDING_WIDTHS: Final = frozenset({64, 96, 128, 192, 256, 300, 384, 512, 768, 1024, 1536, 2048, 3072, 4096})

_CERTAIN: Final[dict[OutputRole, tuple[OutputKind, str]]] = {
    "state": ("none", "the state of a recurrent network"),
    "counts": ("none", "sizes or positions"),
    "detections": ("detection", "what a suppression of overlapping boxes left"),
    "top_k_scores": ("top_k", "the greatest of more scores"),
    "top_k_labels": ("top_k", "the classes of the greatest scores"),
    "label": ("labels", "the class of the greatest score"),
    "values": ("regression", "a regression"),
    "unit_vector": ("embedding", "a vector of length 1"),
    "weights": ("none", "weights that the model multiplies other numbers with"),
}
"""The kind of outputs whose role settles it, and the role in words."""


class KindDecision(NamedTuple):
    """The kind that an output was found to be of, such as `probabilities`, and why."""

    kind: OutputKind | None
    """None while no row showed it."""
    reason: str
    is_certain: bool = True
    """False of what was assumed: a developer may know better."""


DETECTOR: Final = KindDecision("none", "an output of a detector, by the names of the outputs")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFacts:
    """The facts about a model's output before its first values: type, name, class names, the model's file."""

    tensor: Tensor
    class_names: Sequence[str] = ()
    """Names of the classes that the developer declared or the model's metadata has."""
    has_labels: bool = False
    """Whether another output holds the labels."""
    origin: OutputOrigin = NO_ORIGIN
    """How the model's file says that it is computed."""

    producer: str = ""
    """The tool that wrote the model's file; empty if unknown."""
    is_only: bool = True
    """Whether the model has no other output."""

    @property
    def lower_name(self) -> str:
        """The name of the model's output in lower case."""
        return self.tensor.name.lower()

    @property
    def may_have_margins(self) -> bool:
        """Whether the output may hold distances from a decision boundary, and not logits."""
        return self.tensor.layout == "maps" or self.producer.lower() in _MARGIN_PRODUCERS

    @property
    def has_class_names(self) -> bool:
        """Whether the names of the model's classes are known."""
        return bool(self.class_names or self.origin.labels)

    def has_name_per_column(self, width: int) -> bool:
        """Returns whether exactly as many class names are known as the output has columns."""
        return width in {len(self.class_names), len(self.origin.labels)} - {0}

    def compute_sum_tolerance(self, width: int) -> float:
        """Computes by how much the sum of a row's probabilities may differ from 1."""
        return max(2 * TOLERANCE, width / GRID if self.origin.is_quantised else 0.0)


def is_object_detector(output_names: Iterable[str]) -> bool:
    """Returns whether a model is an object detector, by the names of its outputs."""
    return any(_DETECTION.search(name.lower()) for name in output_names)


def is_label_output(tensor: Tensor) -> bool:
    """Returns whether an output holds a label for each row, by its type, shape and name."""
    if tensor.layout == "text":
        return True
    if "int" not in tensor.dtype or tensor.layout != "rows" or _SIZE_NAME.search(tensor.name.lower()):
        return False
    return tensor.row_shape is None or set(tensor.row_shape) <= {1}


def decide_output_kind(facts: OutputFacts, rows: NDArray[Any], *, row_count: int = MIN_ROWS) -> KindDecision:
    """Decides of which kind a model's output is from rows of its values, shape (m, k).

    Args:
        facts: What is known of the output.
        rows: Its values.
        row_count: Number of informative rows so far, these included.
    """
    origin, width = facts.origin, rows.shape[1]
    if rows.dtype.kind in "iu" and origin.is_quantised and origin.role not in {"state", "counts", "detections"}:
        return _decide_by_graph("none", "numbers on an unknown grid", origin)
    if origin.role in _CERTAIN:
        kind, words = _CERTAIN[origin.role]
        return _decide_by_graph(kind, words, origin) if kind != "labels" or width == 1 else _decide_many_classes(origin)
    if origin.role in {"probabilities", "log_probabilities"}:
        return _decide_normalised_kind(facts, rows)
    if rows.dtype.kind in "iub":
        return _decide_integer_kind(facts, rows, width)
    values = select_informative_rows(rows)
    if origin.role == "sigmoid":
        return _decide_sigmoid_kind(facts, values, width)
    if width == 1:
        return _decide_number_kind(facts, values)
    if _NOT_SCORES.search(facts.lower_name):
        return KindDecision("none", "by its name no scores")
    if not values.size:
        return KindDecision(None, "no row shows its kind yet")
    return _decide_vector_kind(facts, values, row_count)


def expect_output_kind(
    name: str,
    origin: OutputOrigin,
    *,
    class_names: Sequence[str],
    producer: str = "",
    is_detector: bool = False,
    has_labels: bool = False,
) -> KindDecision:
    """Decides of which kind a model's output will be before any values, from the model's file alone.

    Args:
        name: The output's name.
        origin: How the file says that it is computed.
        class_names: Names of the classes in the metadata.
        producer: The tool that wrote the file.
        is_detector: Whether the model detects objects by the names of its outputs.
        has_labels: Whether another output holds the labels.
    """
    if is_detector:
        return DETECTOR
    is_integer = origin.role in {"label", "top_k_labels", "counts"}
    dtype = "int64" if is_integer else "float32"
    facts = OutputFacts(
        tensor=Tensor(name=name, layout="rows", dtype=dtype),
        class_names=class_names,
        has_labels=has_labels,
        origin=origin,
        producer=producer,
        is_only=False,
    )
    width = max(origin.width, len(origin.labels), 2 if origin.axis else 1)
    return decide_output_kind(facts, np.zeros((0, 1 if origin.role == "label" else width), dtype=dtype), row_count=0)


def select_informative_rows(rows: NDArray[Any]) -> Floats:
    """Returns the rows of an output that tell its kind: all numbers, and not all of them 0."""
    values = rows.astype(np.float64)
    informative: Floats = values[np.isfinite(values).all(axis=1) & (values != 0).any(axis=1)]
    return informative


def are_probabilities(values: Floats, slack: float = 2 * TOLERANCE) -> bool:
    """Returns whether each row, shape (m, k), holds probabilities that sum to 1; False of no rows."""
    with np.errstate(over="ignore"):
        sums = values.sum(axis=1)
    return bool(values.size) and bool((values >= -TOLERANCE).all()) and _is_close_to_one(sums, slack)


def are_within_unit_interval(values: Floats) -> bool:
    """Returns whether all values of an output lie within [0, 1]."""
    return not ((values < -TOLERANCE) | (values > 1 + TOLERANCE)).any()


def compute_vector_norms(rows: Floats) -> Floats:
    """Computes the Euclidean length of each row of an output, shape (m, k).

    Numbers whose squares overflow or underflow are scaled by the largest of their row.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norms: Floats = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        is_extreme = (norms < _SAFE_NORM) | np.isinf(norms)
        if is_extreme.any():
            extreme = rows[is_extreme]
            scales = np.abs(extreme).max(axis=1)
            scales[scales == 0] = 1.0
            scaled = extreme / scales[:, None]
            norms[is_extreme] = scales * np.sqrt(np.einsum("ij,ij->i", scaled, scaled))
    return norms


def _decide_by_graph(kind: OutputKind | None, words: str, origin: OutputOrigin) -> KindDecision:
    return KindDecision(kind, f"{words}, by its operator {origin.operator}" if origin.operator else words)


def _decide_many_classes(origin: OutputOrigin) -> KindDecision:
    return _decide_by_graph("none", "several classes a sample", origin)


def _decide_normalised_kind(facts: OutputFacts, rows: NDArray[Any]) -> KindDecision:
    """Decides of which kind an output is that the model's file normalises along an axis, as softmax does."""
    origin, width = facts.origin, rows.shape[1]
    values = select_informative_rows(rows)
    if _NOT_SCORES.search(facts.lower_name):
        return _decide_by_graph("none", "by its name no classes, though normalised", origin)
    if origin.is_partial:
        is_single = width == 1
        return _decide_by_graph("sigmoid" if is_single else "none", "some of the probabilities of classes", origin)
    # Of (N, K, 1, 1) the classes are along axis 1 too, and of a vector without samples along its only one.
    is_row = origin.axis == 1 or (origin.axis == 0 and origin.rank == 1)
    if origin.role == "log_probabilities":
        if not is_row or width == 1:
            return _decide_by_graph("none", "logarithms of probabilities, not one row a sample", origin)
        return _decide_by_graph("logits", "logarithms of probabilities", origin)
    if width == 1 and not is_row:
        return _decide_by_graph("none", "one number a row that was normalised with others", origin)
    if not are_within_unit_interval(values):
        return _decide_by_graph("none", "normalised, but not within 0 and 1", origin)
    if is_row:
        return _decide_by_graph("probabilities", "normalised along its classes", origin)
    if origin.axis is None and (are_probabilities(values, facts.compute_sum_tolerance(width)) or not values.size):
        kind: OutputKind | None = "probabilities" if values.size else None
        return _decide_by_graph(kind, "normalised, and its rows sum to 1", origin)
    return _decide_by_graph("none", "normalised along an axis that is not that of the classes of a row", origin)


def _decide_sigmoid_kind(facts: OutputFacts, values: Floats, width: int) -> KindDecision:
    origin = facts.origin
    if _NOT_SCORES.search(facts.lower_name) or _VALUE_NAME.search(facts.lower_name):
        return KindDecision(
            "none" if width > 1 else "regression", f"by its name no probabilities, by {origin.operator}"
        )
    if not are_within_unit_interval(values):
        return KindDecision("none", f"not within 0 and 1, although by {origin.operator}")
    if facts.has_labels and width > 1 and values.size and are_probabilities(values, facts.compute_sum_tolerance(width)):
        return KindDecision("probabilities", "beside labels, and its rows sum to 1")
    return _decide_by_graph("sigmoid" if width == 1 else "multi_label", "independent probabilities", origin)


def _decide_integer_kind(facts: OutputFacts, rows: NDArray[Any], width: int) -> KindDecision:
    if width > 1:
        is_flags = rows.dtype.kind == "b" and not _NOT_SCORES.search(facts.lower_name)
        return KindDecision("multi_label" if is_flags else "none", "flags" if is_flags else "several integers a row")
    if _SIZE_NAME.search(facts.lower_name):
        return KindDecision("none", "by its name sizes")
    if facts.origin.role in {"linear", "sigmoid"}:
        return KindDecision("none", f"numbers on a grid, by {facts.origin.operator}")
    is_wide = rows.size > 0 and (rows.max() > MAX_CLASS or rows.min() < -1)
    if (
        is_wide
        and rows.dtype.itemsize == 1
        and facts.origin.role != "label"
        and not _LABEL_NAME.search(facts.lower_name)
    ):
        return KindDecision("none", "a number of 8 bits, which may be one of a grid", is_certain=False)
    return KindDecision("regression" if _VALUE_NAME.search(facts.lower_name) else "labels", "integers, one a row")


def _decide_number_kind(facts: OutputFacts, values: Floats) -> KindDecision:
    if facts.has_labels:
        return KindDecision("none", "one number beside labels")
    if "logit" in facts.lower_name:
        return KindDecision("logits", "by its name")
    if _VALUE_NAME.search(facts.lower_name):
        return KindDecision("regression", "by its name")
    if not values.size:
        is_score = bool(_SCORE_NAME.search(facts.lower_name))
        return KindDecision("sigmoid" if is_score else None, "by its name" if is_score else "no row shows its kind yet")
    # Of what the file says is made by another operator than a sigmoid, only a name that says so is believed.
    is_open = facts.origin.role in {"unknown", "input"}
    is_named = bool(
        (_SCORE_NAME if is_open else _PROBABILITY_NAME).search(facts.lower_name)
    ) or facts.has_name_per_column(2)
    is_score = are_within_unit_interval(values) and is_named
    return KindDecision("sigmoid" if is_score else "regression", "by its values", is_certain=False)


def _decide_vector_kind(facts: OutputFacts, values: Floats, row_count: int) -> KindDecision:
    width, role = values.shape[1], facts.origin.role
    if are_probabilities(values, facts.compute_sum_tolerance(width)):
        return _decide_share_kind(facts, values, row_count)
    if "logit" in facts.lower_name:
        return KindDecision("logits", "by its name")
    if role == "linear" and facts.origin.companion and not facts.may_have_margins:
        return _decide_by_graph(
            "logits", f"the label {facts.origin.companion} is the greatest of its numbers", facts.origin
        )
    # Beside labels, scores that are not probabilities are distances, votes or margins: no softmax makes them one.
    if facts.has_labels:
        return KindDecision("none", "beside labels, and its rows do not sum to 1")
    if role == "class_scores":
        return KindDecision("none", "scores of no certain scale", is_certain=False)
    if facts.has_name_per_column(width) and facts.tensor.layout == "maps" and role not in {"unknown", "input"}:
        return KindDecision("none", "a dictionary of numbers of no certain scale", is_certain=False)
    if facts.has_name_per_column(width):
        return _decide_named_kind(facts, values, row_count)
    return _decide_kind_by_name(facts, values) or _decide_kind_by_values(facts, values)


def _decide_share_kind(facts: OutputFacts, values: Floats, row_count: int) -> KindDecision:
    """Decides of which kind rows are that sum to 1, as probabilities do, but also shares of anything."""
    if (values.max(axis=1) == 1).all() and not facts.has_labels:  # a class, but no word on how sure it is
        kind: OutputKind | None = "none" if row_count >= MIN_ROWS else None
        return KindDecision(kind, "one of its numbers is 1 and all others are 0", is_certain=kind is None)
    is_computed = facts.origin.role in {"other", "linear", "values"}
    is_named = bool(_LOGIT_NAME.search(facts.lower_name)) or facts.has_name_per_column(values.shape[1])
    if is_computed and not (facts.has_labels or is_named):
        words = f"its rows sum to 1, as shares of anything do, by its operator {facts.origin.operator}"
        return KindDecision("none", words, is_certain=False)
    return KindDecision("probabilities", "its rows sum to 1")


def _decide_kind_by_name(facts: OutputFacts, values: Floats) -> KindDecision | None:
    if _VALUE_NAME.search(facts.lower_name):
        return KindDecision("regression", "by its name")
    if _EMBEDDING.search(facts.lower_name):
        return KindDecision("embedding", "by its name")
    if are_within_unit_interval(values) and _MULTI_NAME.search(facts.lower_name):
        return KindDecision("multi_label", "by its name, and within 0 and 1")
    if facts.origin.role == "linear" and _LOGIT_NAME.search(facts.lower_name):
        return KindDecision("logits", f"by its name and its operator {facts.origin.operator}")
    return None


def _decide_kind_by_values(facts: OutputFacts, values: Floats) -> KindDecision:
    width = values.shape[1]
    if _is_close_to_one(compute_vector_norms(values), TOLERANCE):
        return KindDecision("embedding", "its rows have length 1")
    words = f"{width} numbers without bounds or names"
    if facts.origin.role == "linear" and width <= MAX_VALUES:
        return KindDecision("regression", words, is_certain=False)
    return KindDecision("embedding" if width in _EMBEDDING_WIDTHS else "none", words, is_certain=False)


def _decide_named_kind(facts: OutputFacts, values: Floats, row_count: int) -> KindDecision:
    width = values.shape[1]
    if facts.origin.role in {"unknown", "input"} and are_within_unit_interval(values):
        if row_count < MIN_ROWS and not _MULTI_NAME.search(facts.lower_name):
            return KindDecision(None, "too few rows show its kind yet")
        return KindDecision("multi_label", f"{width} classes are named, and its numbers are within 0 and 1")
    return KindDecision("logits", f"{width} classes are named")


def _is_close_to_one(values: Floats, tolerance: float) -> bool:
    return bool((np.abs(values - 1) <= tolerance).all())
