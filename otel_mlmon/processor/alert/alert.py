"""OUT Alert: one change of state of one rule of one model, with everything a person needs to act on it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

RuleName = Literal["latency", "errors", "prediction_drift", "confidence", "data_drift", "no_data"]
Severity = Literal["warning", "critical"]


class State(Enum):
    """What a rule is in. The value is what `ml.alert.state` carries."""

    OK = 0
    PENDING = 1
    FIRING = 2
    NO_DATA = 3
    ERROR = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One stream that moved, in words people use."""

    stream: str
    value: float
    """Total variation between the rolling window and the reference, [0, 1]; for latency and errors, the share."""
    bound: float
    """What is tolerated of it."""
    before: str
    """What it was in the reference: `mean 0.31`, `label 3: 10 %`."""
    now: str
    n: int
    """Values in the rolling window."""
    reference_count: int
    onset_ns: int
    bins: tuple[str, ...] = ()
    reference_shares: tuple[float, ...] = ()
    current_shares: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One change of state. Firing and resolved alerts leave the step; pending is seen in the API only."""

    model: str
    version: str
    """Empty if unknown."""
    rule: RuleName
    state: State
    previous: State
    severity: Severity
    at_ns: int
    """When the state changed, Unix nanoseconds."""
    since_ns: int
    """The onset of what the alert is about; 0 if there is none."""
    causes: tuple[Cause, ...] = ()
    """Ranked, the largest contribution first."""
    exemplars: tuple[str, ...] = ()
    """Trace ids to look at."""
    links: tuple[tuple[str, str], ...] = ()
    """Name and address: dashboard, runbook."""
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """The same for every alert of this model, version and rule: 16 hex digits. Values are never part of it."""
        text = "\0".join((self.model, self.version, self.rule))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def is_resolved(self) -> bool:
        """Whether this change ends what was firing."""
        return self.state is State.OK

    def to_dict(self) -> dict[str, Any]:
        """As the API and the webhook have it."""
        return {
            "fingerprint": self.fingerprint,
            "model": self.model,
            "version": self.version,
            "rule": self.rule,
            "state": self.state.name.lower(),
            "previous": self.previous.name.lower(),
            "severity": self.severity,
            "at_ns": self.at_ns,
            "since_ns": self.since_ns,
            "causes": [
                {
                    "stream": cause.stream,
                    "value": cause.value,
                    "bound": cause.bound,
                    "before": cause.before,
                    "now": cause.now,
                    "n": cause.n,
                    "reference_count": cause.reference_count,
                    "onset_ns": cause.onset_ns,
                    "bins": list(cause.bins),
                    "reference_shares": list(cause.reference_shares),
                    "current_shares": list(cause.current_shares),
                }
                for cause in self.causes
            ],
            "exemplars": list(self.exemplars),
            "links": [{"name": name, "url": url} for name, url in self.links],
        }
