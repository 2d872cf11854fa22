"""Joins what the outputs of a model say of one classification into a head: a label and the scores it was chosen by.

An output belongs to another one because the model's file says so, or because their values do: the label is the class of
the greatest score, row by row. What belongs together, and the names that heads are counted by, are decided at the
first rows and then stay, so that no stream changes its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from otel_mlmon.instrumentation.decode.predictions import Confidences, Head, Labels
from otel_mlmon.types import Ints, OutputKind

MAX_HEADS: Final = 32
"""Heads, and targets of regressions, that are reported of a model; further ones are left out."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Classification:
    """Holds what one output says of the class of the rows of n calls."""

    output: str
    kind: OutputKind
    has_scores: bool = True
    """Whether it holds scores, not classes."""
    labels: Labels = field(default_factory=Labels)
    """Of scores the class of the greatest; of scores of `top_k` none, since another output holds the classes."""
    confidences: Confidences = field(default_factory=Confidences)
    sizes: Ints
    """Shape (n,): rows of each call, copied or not."""
    decoded: Ints
    """Shape (n,): rows of each call that were decoded."""
    earlier: int = 0
    """Rows that came before the kind of the output was known, and were not counted."""
    width: int = 1
    """Columns of the output."""
    companion: str = ""
    """The output that belongs to this one by the model's file; empty if that is not known."""


@dataclass(slots=True)
class _Members:
    """Names the outputs of one head."""

    name: str
    """The output that the head is named after: the first one that had rows."""
    label: str = ""
    scores: str = ""


class HeadJoiner:
    """Joins the classifications of the calls of one plan.

    Runs on: one thread at a time.
    """

    def __init__(self) -> None:
        self._heads: list[_Members] = []
        self._repeats: set[str] = set()
        """Outputs of scores that give the classes of another head a second time."""

    def join(self, classifications: Sequence[Classification]) -> dict[str, Head]:
        """Joins the classifications of a batch of calls, by the output that each head is named after."""
        by_output = {part.output: part for part in classifications}
        placed = {name for head in self._heads for name in (head.label, head.scores)} | self._repeats
        added = [part for part in classifications if part.output not in placed and part.sizes.any()]
        for part in sorted(added, key=lambda part: not part.has_scores):
            self._place(part, by_output)
        order = {part.output: position for position, part in enumerate(classifications)}
        parts = [(head.name, by_output.get(head.label), by_output.get(head.scores)) for head in self._heads]
        present = [(name, label, scores) for name, label, scores in parts if label is not None or scores is not None]
        present.sort(key=lambda entry: order.get(entry[0], len(order)))
        return {name: _join(label, scores) for name, label, scores in present}

    def _place(self, part: Classification, by_output: Mapping[str, Classification]) -> None:
        """Adds an output to the head it belongs to, or to a new one."""
        if part.has_scores and any(_is_repeat(by_output.get(head.scores), part) for head in self._heads if head.scores):
            self._repeats.add(part.output)
            return
        for head in self._heads:
            partner = by_output.get(head.scores if not part.has_scores else head.label)
            is_open = not (head.scores if part.has_scores else head.label)
            if is_open and partner is not None and self._are_one(part, partner, by_output):
                head.label, head.scores = (head.label, part.output) if part.has_scores else (part.output, head.scores)
                return
        if len(self._heads) < MAX_HEADS:
            members = _Members(part.output)
            members.label, members.scores = ("", part.output) if part.has_scores else (part.output, "")
            self._heads.append(members)

    def _are_one(self, part: Classification, partner: Classification, by_output: Mapping[str, Classification]) -> bool:
        """Whether a label and scores are one classification."""
        for one, other in ((part, partner), (partner, part)):
            if one.companion in by_output:
                return one.companion == other.output
        if "top_k" in {part.kind, partner.kind}:
            return part.kind == partner.kind and part.width == partner.width
        others = [other for other in by_output.values() if other.kind != "top_k" and other.output not in self._repeats]
        if sum(other.has_scores for other in others) == sum(not other.has_scores for other in others) == 1:
            return True
        return _are_paired(part.labels, partner.labels)


def _join(label: Classification | None, scores: Classification | None) -> Head:
    parts = [part for part in (label, scores) if part is not None]
    classes = parts[0]
    if label is not None and scores is not None and scores.decoded.sum() > label.decoded.sum():
        classes = scores if _agree(label, scores) else label
    decoded = classes.decoded if classes.kind != "top_k" or not classes.has_scores else 0
    uncounted = np.maximum(np.maximum(parts[0].sizes, parts[-1].sizes) - decoded, 0)
    uncounted[0] += classes.earlier
    confidences = scores.confidences if scores is not None else Confidences()
    return Head(labels=classes.labels, confidences=confidences, uncounted=uncounted)


def _agree(label: Classification, scores: Classification) -> bool:
    """Whether each label that was copied is the class of its row's greatest score, where every score was copied.

    Rows of a label are copied at the smallest constant step that gives as many.
    """
    label_ends, score_ends = np.cumsum(label.decoded), np.cumsum(scores.decoded)
    if len(label.labels.codes) != label.decoded.sum() or len(scores.labels.codes) != scores.decoded.sum():
        return False
    for call in np.flatnonzero(label.decoded).tolist():
        size, count = int(scores.decoded[call]), int(label.decoded[call])
        if size != label.sizes[call] or size < count:
            return False
        first = int(score_ends[call]) - size
        codes = scores.labels.codes[first : first + size : -(-size // count)]
        texts = [scores.labels.table[code] for code in codes.tolist()]
        last = int(label_ends[call])
        if texts != [label.labels.table[code] for code in label.labels.codes[last - count : last].tolist()]:
            return False
    return True


def _are_paired(one: Labels, other: Labels) -> bool:
    """Whether each label of one goes with one label of the other, row by row."""
    if not np.array_equal(one.calls, other.calls):
        return False
    pairs = set(zip(one.codes.tolist(), other.codes.tolist(), strict=True))
    return len(pairs) == len({first for first, _ in pairs}) == len({second for _, second in pairs})


def _is_repeat(first: Classification | None, part: Classification) -> bool:
    """Whether logits and probabilities are those of one classification."""
    return (
        first is not None
        and first.width == part.width
        and {first.kind, part.kind} == {"logits", "probabilities"}
        and np.array_equal(first.labels.codes, part.labels.codes)
        and np.array_equal(first.labels.calls, part.labels.calls)
    )


class SeriesNames:
    """Decides by what name each head and each regression of a model is counted: the only one of a model by none.

    Runs on: one thread at a time.

    Args:
        has_several: Whether the model is known to have several; else the first rows decide.
    """

    def __init__(self, *, has_several: bool) -> None:
        self._has_several = has_several
        self._names: dict[str, str] = {}

    def assign(self, outputs: Sequence[str]) -> Mapping[str, str]:
        """Returns the names of all outputs so far, these included; a name never changes."""
        is_only = not self._names and not self._has_several and len(outputs) == 1
        for output in outputs:
            self._names.setdefault(output, "" if is_only else output)
        return self._names
