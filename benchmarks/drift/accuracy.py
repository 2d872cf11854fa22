"""The table of the estimated accuracy: does its interval hold what it says on shifted chunks, and how far off is it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.drift.accuracy_chunks import (
    PER_SPLIT,
    SHIFTS,
    Chunk,
    Draw,
    draw_chunks,
    from_predictions,
    from_rows,
    load_nannyml,
    load_scikit_learn,
)
from benchmarks.drift.intervals import share
from benchmarks.drift.peers import ask_installed
from otel_mlmon.processor.detect.accuracy import estimate_accuracy

CAR_LOAN: Final = from_predictions(
    load_nannyml(
        "synthetic_car_loan_reference.csv", "synthetic_car_loan_analysis.csv", "synthetic_car_loan_analysis_target.csv",
        label="repaid",
    )
)  # fmt: skip
EMPLOYMENT: Final = from_predictions(
    load_nannyml(
        "employment_MA_reference.pq", "employment_MA_analysis.pq", "employment_MA_analysis_target.pq",
        label="employed", proba="predicted_probability",
    )
)  # fmt: skip
TABLES: Final[dict[str, tuple[Draw, bool]]] = {
    "car loan": (CAR_LOAN, False),
    "cancer": (from_rows(load_scikit_learn("breast_cancer")), False),
    "digits": (from_rows(load_scikit_learn("digits")), False),
    "wine": (from_rows(load_scikit_learn("wine")), False),
    "employment": (EMPLOYMENT, True),
}
"""Tables by name, and whether a constant of the interval was chosen on them."""

SPLITS: Final = 60


def estimated_accuracy(seed: int, scale: float) -> Iterator[str]:
    """How often the interval holds, and the mean error, beside NannyML's CBPE on the same chunks."""
    splits = max(3, round(SPLITS * scale))
    yield f"{splits} models and calibrations of each table, {PER_SPLIT} chunks of each: random rows, tilted along a"
    yield "random direction of the inputs (two standard deviations at most), by class (half of one), by confidence,"
    yield "and stretches of time. Share of the shifted chunks (without those of random rows) whose true accuracy lies"
    yield "in the 95 % interval, with its own interval as if chunks were independent; mean absolute error of the same."
    yield ""
    yield "| table | tuned on | shifted chunks | covered | by kind | width | error | CBPE covered | CBPE error |"
    yield "|---|---|--:|--:|---|--:|--:|--:|--:|"
    for name, (draw, is_tuned) in TABLES.items():
        chunks = list(draw_chunks(draw, seed=seed, splits=splits))
        yield f"| {name} | {'yes' if is_tuned else 'no'} | {_row(chunks)} | {_ask_cbpe(chunks)} |"


def _row(chunks: list[Chunk]) -> str:
    outcomes: list[tuple[str, bool, float, float]] = []
    for chunk in chunks:
        calibration = chunk.pool.calibration
        accuracy = estimate_accuracy(calibration.right, calibration.total, chunk.window)
        assert accuracy is not None
        is_covered = accuracy.low <= chunk.accuracy <= accuracy.high
        error = abs(accuracy.estimated - chunk.accuracy)
        outcomes.append((chunk.shift, is_covered, error, accuracy.high - accuracy.low))
    shifted = [outcome for outcome in outcomes if outcome[0] != "none"]
    by_kind = ", ".join(
        f"{kind} {np.mean([covered for shift, covered, _, _ in outcomes if shift == kind]):.3f}" for kind in SHIFTS
    )
    covered = sum(outcome[1] for outcome in shifted)
    width, error = (float(np.mean([outcome[place] for outcome in shifted])) for place in (3, 2))
    return f"{len(shifted)} | {share(covered, len(shifted))} | {by_kind} | {width:.3f} | {error:.4f}"


def _ask_cbpe(chunks: list[Chunk]) -> str:
    """Writes the shifted chunks for NannyML's own environment, and returns what it says of them."""
    with tempfile.TemporaryDirectory() as folder:
        pools: dict[int, list[Chunk]] = {}
        for chunk in chunks:
            if chunk.shift != "none":
                pools.setdefault(id(chunk.pool), []).append(chunk)
        for number, members in enumerate(pools.values()):
            pool, rows = members[0].pool, np.concatenate([chunk.rows for chunk in members])
            arrays: dict[str, Any] = {
                "reference_proba": pool.reference_proba, "reference_labels": pool.reference_labels,
                "proba": pool.proba[rows], "labels": pool.labels[rows], "chunk": pool.chunk,
            }  # fmt: skip
            np.savez(Path(folder) / f"{number:04}.npz", **arrays)
        try:
            answer = ask_installed("nannyml", "ask_cbpe.py", {"folder": folder})
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            reason = getattr(error, "stderr", None) or str(error)
            return f"not run: {' '.join(str(reason).split())[-90:]} | –"
    numbers = json.loads(json.dumps(answer))
    return f"{numbers['covered']:.3f} | {numbers['mae']:.4f}"
