"""OUT Alert: one change of state of one rule of one model, with everything a person needs to act on it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

RuleName = Literal["latency", "errors", "prediction_drift", "confidence", "data_drift", "statistic", "no_data"]
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
    """Total variation of what was counted from the reference, [0, 1]; for latency and errors, the share."""
    bound: float
    """What is tolerated of it."""
    before: str
    """What it was in the reference: `mean 0.31`, `label 3: 10 %`."""
    now: str
    n: int
    """Values counted: since the onset, or in the rolling window where that is shorter."""
    reference_count: int
    onset_ns: int
    bins: tuple[str, ...] = ()
    reference_shares: tuple[float, ...] = ()
    current_shares: tuple[float, ...] = ()
    details: tuple[str, ...] = ()
    """What moved, in words: mean, middle half, missing values, classes."""
    statistic: str = ""
    """Of rule `statistic`: which one `value` and `bound` are of, `p of …` if they are p-values; empty otherwise."""

    def to_dict(self) -> dict[str, Any]:
        """As the API, the webhook and the state on disk have it."""
        return {
            "stream": self.stream,
            "value": self.value,
            "bound": self.bound,
            "before": self.before,
            "now": self.now,
            "n": self.n,
            "reference_count": self.reference_count,
            "onset_ns": self.onset_ns,
            "bins": list(self.bins),
            "reference_shares": list(self.reference_shares),
            "current_shares": list(self.current_shares),
            "details": list(self.details),
            "statistic": self.statistic,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Cause:
        """What `to_dict` gave, also after a way through JSON."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        return cls(**fields)


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
    """Anything else a person should read: `reason` of an error."""

    @property
    def fingerprint(self) -> str:
        """The same for every alert of this model, version and rule: 16 hex digits, no values in them."""
        text = "\0".join((self.model, self.version, self.rule))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def is_resolved(self) -> bool:
        """Whether this change ends what was firing."""
        return self.state is State.OK

    def to_dict(self) -> dict[str, Any]:
        """As the API, the webhook and the state on disk have it."""
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
            "causes": [cause.to_dict() for cause in self.causes],
            "exemplars": list(self.exemplars),
            "links": [{"name": name, "url": url} for name, url in self.links],
            "attributes": dict(self.attributes),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Alert:
        """What `to_dict` gave, also after a way through JSON."""
        return cls(
            model=data["model"],
            version=data["version"],
            rule=data["rule"],
            state=State[data["state"].upper()],
            previous=State[data["previous"].upper()],
            severity=data["severity"],
            at_ns=data["at_ns"],
            since_ns=data["since_ns"],
            causes=tuple(Cause.from_dict(cause) for cause in data["causes"]),
            exemplars=tuple(data["exemplars"]),
            links=tuple((link["name"], link["url"]) for link in data["links"]),
            attributes=dict(data["attributes"]),
        )
