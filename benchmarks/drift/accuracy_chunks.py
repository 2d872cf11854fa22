"""Shifted chunks of real labelled data, with the accuracy that each really has.

A table is parted into rows that teach a model, rows that calibrate it, and rows that chunks are drawn from. A chunk is
drawn without replacement with weights exp(s·z): z is a standardized direction in the inputs, a class, or what the
model is sure of, and s how strong the shift is. The model, its calibration and the chunks are drawn
anew for every seed, so that results are those of many models and not of one.

NannyML's tables come with a model's predictions and with time: they are cut by rows instead, and chunks are drawn from
a part of the later rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.reference.calibration import Calibration
from otel_mlmon.types import Counts, Floats

Rng = np.random.Generator

SHIFTS: Final = ("none", "direction", "class", "confidence", "time")
MAX_STRENGTH: Final = {"none": 0.0, "direction": 2.0, "class": 0.5, "confidence": 2.0}
"""The largest s, of standardized values. Of two classes .5 makes 61 % of 37 %."""
PER_SPLIT: Final = 25
"""Chunks that are drawn of one model and calibration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Rows that chunks are drawn from, and the calibration of their model."""

    calibration: Calibration
    reference_proba: Floats
    """Probability of each class on the rows that calibrate, shape (n, C)."""
    reference_labels: Counts
    """Shape (n,), positions of classes."""
    inputs: Floats
    """Standardized inputs, shape (m, F)."""
    proba: Floats
    """Shape (m, C)."""
    labels: Counts
    """Shape (m,)."""
    chunk: int
    """Rows in a chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One shifted chunk."""

    pool: Pool
    shift: str
    rows: NDArray[np.intp]

    @property
    def confidences(self) -> Floats:
        """Shape (n,)."""
        confidences: Floats = self.pool.proba[self.rows].max(-1)
        return confidences

    @property
    def accuracy(self) -> float:
        """The share of the chunk that is right."""
        return float((self.pool.proba[self.rows].argmax(-1) == self.pool.labels[self.rows]).mean())

    @property
    def window(self) -> Counts:
        """The chunk by bin of confidence."""
        return Calibration.from_predictions(self.confidences, np.zeros(self.rows.size, dtype=bool)).total


Draw = Callable[[Rng], Pool]


def draw_chunks(draw: Draw, *, seed: int, splits: int) -> Iterator[Chunk]:
    """Yields the chunks of many models of one table."""
    for split in range(splits):
        rng = np.random.default_rng([seed, split])
        pool = draw(rng)
        for number in range(PER_SPLIT):
            shift = SHIFTS[number % len(SHIFTS)]
            yield Chunk(pool=pool, shift=shift, rows=choose_rows(pool, shift, rng))


def choose_rows(pool: Pool, shift: str, rng: Rng) -> NDArray[np.intp]:
    """Draws the rows of a chunk."""
    rows = pool.labels.size
    if shift == "time":
        start = int(rng.integers(0, rows - pool.chunk + 1))
        return np.arange(start, start + pool.chunk)
    if shift == "direction":
        along: Floats = pool.inputs @ rng.normal(size=pool.inputs.shape[1])
    elif shift == "class":
        along = np.asarray(rng.normal(size=pool.proba.shape[1]))[pool.labels]
    elif shift == "confidence":
        along = pool.proba.max(-1)
    else:
        along = np.zeros(rows)
    spread = along.std()
    strength = rng.uniform(-1.0, 1.0) * MAX_STRENGTH[shift]
    # The largest n of ln w plus Gumbel noise are a weighted sample without replacement.
    keys = strength * (along - along.mean()) / (spread if spread > 0.0 else 1.0) + rng.gumbel(size=rows)
    return np.argpartition(-keys, pool.chunk - 1)[: pool.chunk]


def calibrate(proba: Floats, labels: Counts) -> Calibration:
    """Counts how often the predictions of some rows are right."""
    return Calibration.from_predictions(proba.max(-1), proba.argmax(-1) == labels)


def models(seed: int) -> tuple[Any, ...]:
    """Makes classifiers of different kinds, from too sure to not sure enough."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB

    return (
        LogisticRegression(max_iter=300),
        RandomForestClassifier(n_estimators=40, random_state=seed),
        GaussianNB(var_smoothing=1e-3),
        HistGradientBoostingClassifier(max_iter=40, random_state=seed),
    )


def from_rows(load: Callable[[], tuple[Floats, Counts]], *, calibration: float = 0.35, chunk: int = 200) -> Draw:
    """Returns how pools are drawn of a table without a model: of random rows, a model of a kind chosen at random."""
    table = lru_cache(maxsize=1)(load)

    def draw(rng: Rng) -> Pool:
        inputs, labels = table()
        inputs = (inputs - inputs.mean(0)) / np.maximum(inputs.std(0), 1e-9)
        order = rng.permutation(labels.size)[:6_000]
        first, second = int(0.3 * order.size), int((0.3 + calibration) * order.size)
        train, reference, later = order[:first], order[first:second], order[second:]
        kinds = models(int(rng.integers(1 << 30)))
        model = kinds[int(rng.integers(len(kinds)))].fit(inputs[train], labels[train])
        proba, reference_proba = model.predict_proba(inputs[later]), model.predict_proba(inputs[reference])
        place = {label: position for position, label in enumerate(model.classes_.tolist())}
        found = np.array([place.get(label, -1) for label in labels.tolist()])
        is_named = found[later] >= 0
        later, proba = later[is_named], proba[is_named]
        return Pool(
            calibration=calibrate(reference_proba, found[reference]),
            reference_proba=reference_proba,
            reference_labels=found[reference],
            inputs=inputs[later],
            proba=proba,
            labels=found[later],
            chunk=min(chunk, later.size // 2),
        )

    return draw


def from_predictions(load: Callable[[], tuple[Floats, Floats, Counts, int]], *, chunk: int = 1_000) -> Draw:
    """Returns how pools are drawn of a table with predictions: part of the reference, a stretch of later rows."""
    table = lru_cache(maxsize=1)(load)

    def draw(rng: Rng) -> Pool:
        inputs, proba, labels, reference_rows = table()
        size = int(10 ** rng.uniform(2.5, 4.0))
        reference = rng.choice(reference_rows, min(size, reference_rows), replace=False)
        start = int(rng.integers(reference_rows, labels.size - 4 * chunk + 1))
        later = np.arange(start, start + 4 * chunk)
        return Pool(
            calibration=calibrate(proba[reference], labels[reference]),
            reference_proba=proba[reference],
            reference_labels=labels[reference],
            inputs=inputs[later],
            proba=proba[later],
            labels=labels[later],
            chunk=chunk,
        )

    return draw


def load_scikit_learn(name: str) -> Callable[[], tuple[Floats, Counts]]:
    """Returns what loads a table of scikit-learn's."""

    def load() -> tuple[Floats, Counts]:
        from sklearn import datasets

        inputs, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
        return inputs.astype(np.float64), labels.astype(np.int64)

    return load


def nannyml_folder() -> Path:
    """Returns where NannyML's wheel has its tables; the package itself is never imported."""
    from importlib.metadata import distribution

    return Path(str(distribution("nannyml").locate_file("nannyml/datasets/data")))


def load_nannyml(
    reference: str, later: str, truth: str, *, label: str, truth_label: str = "", proba: str = "y_pred_proba"
) -> Callable[[], tuple[Floats, Floats, Counts, int]]:
    """Returns what loads a binary table of NannyML's with the predictions of its model."""

    def load() -> tuple[Floats, Floats, Counts, int]:
        import pandas as pd

        read = pd.read_parquet if reference.endswith(".pq") else pd.read_csv
        first, second, right = (read(nannyml_folder() / name) for name in (reference, later, truth))
        second[label] = right[truth_label or label].to_numpy()
        both = pd.concat([first, second], ignore_index=True)
        ignored = {"id", "identifier", "timestamp", "period", label, proba, "y_pred", "prediction", "year"}
        columns = [pd.factorize(both[name])[0] if both[name].dtype == object or str(both[name].dtype) in ("str", "bool")
                   else both[name].fillna(0.0) for name in both.columns if name not in ignored]  # fmt: skip
        inputs = np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
        inputs = (inputs - inputs.mean(0)) / np.maximum(inputs.std(0), 1e-9)
        positive = both[proba].to_numpy(dtype=np.float64)
        return inputs, np.stack([1.0 - positive, positive], axis=1), both[label].to_numpy(dtype=np.int64), len(first)

    return load
