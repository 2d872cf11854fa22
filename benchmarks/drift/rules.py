"""The drift rules that are compared, ours and others by their formulas, over many replicates at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from otel_mlmon.processor.detect.alternatives import Direction
from otel_mlmon.processor.detect.counts import build_samples
from otel_mlmon.processor.detect.evidence import CALIBRATING, DRIFT, EvidenceBank
from otel_mlmon.processor.detect.statistics.registry import STATISTICS
from otel_mlmon.types import Counts, Floats

Flags = NDArray[np.bool_]
Rng = np.random.Generator

ARL_LINE = math.log(1e4)
FLEET_LINE = math.log(6.7e6)
"""One false alarm in 30 days over 26 streams with panes of 10 s."""


class DriftRule(Protocol):
    """A drift rule, on as many streams as there are references."""

    def alarms(self, counts: Counts, /) -> Flags:
        """Returns whether each stream is in alarm after another window; counts of shape (S, K)."""


@dataclass(frozen=True)
class Named:
    """A drift rule by its name, and how it is begun."""

    name: str
    begin: Callable[[Counts, Rng, int], DriftRule]
    """From references of shape (S, K), a generator, and the size of a window."""


class Tolerant:
    """The tolerant e-CUSUM, which the processor has."""

    def __init__(self, references: Counts, *, line: float, tolerance: float, direction: Direction = "both") -> None:
        self.bank = EvidenceBank(references.shape[1], direction)
        self.rows = np.array([self.bank.add(reference, tolerance) for reference in references])
        self.line = line

    @property
    def is_calibrated(self) -> bool:
        """Whether no stream is still to find its design effect."""
        return bool((self.bank.status[self.rows] != CALIBRATING).all())

    def alarms(self, counts: Counts, /) -> Flags:
        """Of every stream."""
        return self.update(np.arange(self.rows.size), counts)

    def update(self, streams: NDArray[np.intp], counts: Counts) -> Flags:
        """The same for some of the streams."""
        rows = self.rows[streams]
        self.bank.update(rows, counts, np.ones(rows.size, dtype=np.int64), self.line)
        flags: Flags = self.bank.status[rows] == DRIFT
        return flags


class Distance:
    """A drift rule that compares a statistic of each window with a threshold, without memory."""

    def __init__(self, references: Counts, breached: Callable[[Counts, Counts], Any]) -> None:
        self.references = references
        self.breached = breached

    def alarms(self, counts: Counts, /) -> Flags:
        """Of this window alone."""
        flags: Flags = np.asarray(self.breached(self.references, counts))
        return flags


def tolerant(*, line: float = ARL_LINE, tolerance: float = 0.02, direction: Direction = "both") -> Named:
    """Creates our drift rule, by its alarm line and tolerance."""

    def begin(references: Counts, _rng: Rng, _items: int) -> DriftRule:
        return Tolerant(references, line=line, tolerance=tolerance, direction=direction)

    return Named(f"**tolerant e-CUSUM**, tolerance {tolerance:g}, ARL {math.exp(line):.3g}", begin)


def jensen_shannon(references: Counts, counts: Counts) -> Floats:
    """Returns the Jensen-Shannon distance in base 2 of each row."""
    return STATISTICS.load_plugin("jensen_shannon").measure(build_samples(references, counts)).value


def _stateless(name: str, breached: Callable[[Counts, Counts], Any]) -> Named:
    return Named(name, lambda references, _rng, _items: Distance(references, breached))


def _one_sample(references: Counts, counts: Counts) -> Flags:
    expected = references / references.sum(-1, keepdims=True) * counts.sum(-1, keepdims=True)
    statistic = ((counts - expected) ** 2 / np.maximum(expected, 1e-12)).sum(-1)
    flags: Flags = chdtrc(references.shape[1] - 1, statistic) < 0.05
    return flags


def _two_samples(references: Counts, counts: Counts) -> Flags:
    p_value = STATISTICS.load_plugin("chi_squared").measure(build_samples(references, counts)).p_value
    assert p_value is not None
    return p_value < 0.05


def _evidently_small(references: Counts, rng: Rng, _items: int) -> DriftRule:
    shares = references / references.sum(-1, keepdims=True)
    return Distance(rng.multinomial(1_000, shares), _one_sample)


def _nannyml(references: Counts, rng: Rng, items: int) -> DriftRule:
    """Mean + 3 sd of the statistic over the chunks that the reference makes, each as large as a window."""
    chunks = max(1, int(references.sum(-1).min()) // items)
    shares = references / references.sum(-1, keepdims=True)
    parts = np.stack([rng.multinomial(items, shares) for _ in range(chunks)])
    pooled = parts.sum(0)
    of_reference = np.stack([jensen_shannon(pooled, part) for part in parts])
    threshold = of_reference.mean(0) + 3.0 * of_reference.std(0)
    return Distance(pooled, lambda reference, window: jensen_shannon(reference, window) > threshold)


PEER_RULES = (
    Named("evidently default, reference ≤ 1000 (one-sample chi² p<.05)", _evidently_small),
    _stateless(
        "evidently default, reference > 1000 (JS natural ≥ .1)",
        lambda reference, window: jensen_shannon(reference, window) * math.sqrt(math.log(2.0)) >= 0.1,
    ),
    _stateless(
        "PSI > .2",
        lambda reference, window: STATISTICS.load_plugin("psi").measure(build_samples(reference, window)).value > 0.2,
    ),
    _stateless("chi² two-sample p<.05 (NannyML chi2, alibi-detect)", _two_samples),
    Named("NannyML default (JS > mean + 3 sd of the reference's chunks)", _nannyml),
)
