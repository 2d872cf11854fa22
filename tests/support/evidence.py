"""A bank of evidence with a single stream, and its state as plain values."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.processor.detect.alternatives import Direction
from otel_mlmon.processor.detect.evidence import EvidenceBank
from otel_mlmon.processor.detect.state import EvidenceColumns

STATUSES = ("calibrating", "ok", "drift")
"""By code."""


def plain(value: object) -> Any:
    """Converts a state to values that compare: dataclasses as dicts, arrays as lists."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return value.tolist() if isinstance(value, np.ndarray) else value


class Evidence:
    """The evidence of one stream in a bank of its own."""

    def __init__(self, reference: NDArray[Any], *, tolerance: float, direction: Direction = "both") -> None:
        self.bank = EvidenceBank(reference.size, direction)
        self.row = self.bank.add(reference, tolerance)

    def update(self, counts: NDArray[Any], end_ns: int, log_alarm_line: float) -> None:
        self.bank.update(np.array([self.row]), counts[None], np.array([end_ns]), log_alarm_line)

    @property
    def status(self) -> str:
        return STATUSES[int(self.bank.status[self.row])]

    @property
    def log_e(self) -> float:
        return float(self.bank.log_e[self.row])

    @property
    def since_ns(self) -> int:
        return int(self.bank.column("since_ns")[self.row])

    @property
    def design_effect(self) -> float:
        return float(self.bank.effects.estimate[self.row])

    @property
    def divisor(self) -> float:
        """The divisor of the counts of the next pane."""
        return float(self.bank.effects.divisor[self.row])

    @property
    def contributions(self) -> tuple[float, ...]:
        return tuple(self.bank.column("contributions")[self.row].tolist())

    def state(self) -> EvidenceColumns:
        return self.bank.pack([self.row])

    @classmethod
    def from_state(cls, state: EvidenceColumns, direction: Direction = "both") -> Evidence:
        evidence = cls.__new__(cls)
        evidence.bank = EvidenceBank(state.reference.shape[1], direction)
        evidence.row = evidence.bank.restore(state)[0]
        return evidence
