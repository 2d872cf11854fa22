"""OUT Alert: one change of state of one rule of one model, with everything a person needs to act on it."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any, Final, Literal

from otel_mlmon.types import ModelKey

Severity = Literal["warning", "critical"]


RELEARNABLE: Final = frozenset({"learned", "rolling", "hour_of_week"})
"""Origins of references that can be learned again."""
MAX_NAMED_STREAMS: Final = 5
SILENCE_FOR: Final = "2h"
"""How long the command in an alert silences it."""
DEFAULT_URL: Final = "http://127.0.0.1:8080"
"""The web port that the command asks unless it is given another."""
LOOPBACK_OF: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 (read, not listened on)
"""Where a processor that listens on all addresses is reached from its own machine."""


class RuleState(str, Enum):
    """The state of a rule; the values are those of the API and of `semconv.ALERT_STATES`."""

    OK = "ok"
    PENDING = "pending"
    FIRING = "firing"
    NO_DATA = "no_data"
    ERROR = "error"
    UNKNOWN = "unknown"
    """Never one of an alert: an active rule that cannot judge this model, such as `accuracy` without labelled data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One stream that breaches a rule: how much it moved, in numbers and in words."""

    stream: str
    value: float
    """The value that the rule compares with `bound`: a total variation or a ratio in [0, 1], or a statistic."""
    bound: float
    """The largest value that is tolerated; the smallest, if the value is a p-value."""
    reference: str
    """The reference as a text: `mean 0.31`, `label 3: 10 %`."""
    current: str
    """The current data as a text, in the same form."""
    current_count: int
    """Values counted since the onset, or in the rolling window if that holds fewer."""
    reference_count: int
    onset_ns: int
    """Time at which the stream began to move, Unix nanoseconds; 0 if that is unknown."""
    bins: tuple[str, ...] = ()
    """K names of bins, which the shares below belong to."""
    reference_shares: tuple[float, ...] = ()
    current_shares: tuple[float, ...] = ()
    details: tuple[str, ...] = ()
    """A text that says what moved: mean, middle half, missing values, classes."""
    summary: str = ""
    """A text that says how much it moved: `total variation 35 %, tolerated 2 % (n = 4 210, reference n = 5 000)`."""
    is_absent: bool = False
    """Whether the stream is no longer sent, rather than distributed differently."""
    origin: str = ""
    """Origin of the reference, as in `window.ReferenceOrigin`; empty if unknown."""
    margin: float = 0.0
    """log10 of the evidence over the alarm line, or of the value over its bound: ranks causes."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as the API and the webhook have them; JSON can hold them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An address to open for more: a dashboard, a runbook."""

    name: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RelatedRule:
    """Another rule of the same model that fires since about the same time: probably of the same cause."""

    rule: str
    title: str
    stream: str
    """The first of its causes; empty if it has none."""
    onset_ns: int
    """Unix nanoseconds; 0 if that is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One change of state of one rule. Those that fire or end are notified; pending is seen in the API only."""

    model: str
    version: str
    """Empty if unknown."""
    environment: str = ""
    """The `deployment.environment.name` of the model; empty if unknown."""
    rule: str
    title: str
    """The subject of the rule as people call it: `prediction drift`."""
    state: RuleState
    previous: RuleState
    severity: Severity
    time_ns: int
    """Time at which the state changed, Unix nanoseconds."""
    onset_ns: int
    """Time at which the cause of the alert began, Unix nanoseconds; 0 if that is unknown."""
    causes: tuple[Cause, ...] = ()
    """Ranked, the largest contribution first."""
    exemplars: tuple[str, ...] = ()
    """Trace ids to look at."""
    links: tuple[Link, ...] = ()
    reason: str = ""
    """Why a rule is in error, or why an alert ended other than by itself."""
    sequence: int = 0
    """Counts what one processor notifies of, all models and rules together."""
    incident_ns: int = 0
    """Time at which this alert was first notified of, Unix nanoseconds; the same for all its updates and its end."""
    first_severity: Severity | Literal[""] = ""
    """The severity at the first notification; empty before it."""
    joined: tuple[str, ...] = ()
    """Streams that breach the rule since after the first notification, in the order in which they joined."""
    news: tuple[str, ...] = ()
    """What an update tells that no notification told before: streams, and `severity`."""
    related: tuple[RelatedRule, ...] = ()
    """Other rules of the model that fire since about the same time."""
    silence: str = ""
    """Why nobody is notified now: who silenced it until when, or a maintenance window; empty if nothing does."""
    missed: tuple[str, ...] = ()
    """Alerts that began and ended while this recipient could not be reached, a line each."""
    web_address: str = ""
    """The `host:port` of the processor's web port; empty if it has none."""
    is_test: bool = False
    """Whether somebody tests the notifiers, and nothing is wrong."""

    @property
    def model_key(self) -> ModelKey:
        """The model version."""
        return ModelKey(self.model, self.version, self.environment)

    @property
    def key(self) -> str:
        """Identifies this notification: the same for every attempt, and that of no other."""
        return f"{self.fingerprint}-{self.time_ns}-{self.sequence}"

    @property
    def is_update(self) -> bool:
        """Whether it was notified of before, and is not over."""
        return self.state is self.previous and not self.is_resolved

    @property
    def is_beginning(self) -> bool:
        """Whether it was not notified of before."""
        return self.previous in (RuleState.OK, RuleState.PENDING) and not self.is_resolved

    @property
    def fingerprint(self) -> str:
        """Identifies every alert of this model, version, environment and rule: 16 hex digits, no values in them."""
        text = "\0".join((self.model, self.version, self.environment, self.rule))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def is_resolved(self) -> bool:
        """Whether this change ends what was firing."""
        return self.state is RuleState.OK

    @property
    def web_url(self) -> str:
        """The address of the processor's pages from its own machine; empty if it has none, or a port that is not known.

        Of port 0 the operating system chose another one.
        """
        host, _, port = self.web_address.rpartition(":")
        return f"http://{LOOPBACK_OF.get(host, host)}:{port}" if int(port or 0) else ""

    @property
    def relearn_command(self) -> str:
        """The command that accepts the drift as the new normal, to be run on the processor's machine.

        It names the streams that drift, or none of them, which means all, if they are more than `MAX_NAMED_STREAMS`.
        Empty if no cause is against a learned reference, or the web port is not known.
        """
        names = [cause.stream for cause in self.causes if cause.origin in RELEARNABLE]
        if not names or not self.web_url:
            return ""
        words = ["otel-mlmon", "reference", "relearn", self.model_key.id]
        words += ["--model-version", self.version] if self.version else []
        words += [word for name in names if len(names) <= MAX_NAMED_STREAMS for word in ("--stream", name)]
        words += ["--url", self.web_url] if self.web_url != DEFAULT_URL else []
        return shlex.join(words)

    @property
    def silence_command(self) -> str:
        """The command that silences this rule of this model for a while, to be run on the processor's machine.

        Empty if the web port is not known.
        """
        if not self.web_url:
            return ""
        words = ["otel-mlmon", "alert", "silence", "--rule", self.rule, "--for", SILENCE_FOR]
        words += ["--url", self.web_url] if self.web_url != DEFAULT_URL else []
        words += ["--"] if self.model_key.id.startswith("-") else []
        return shlex.join([*words, self.model_key.id])

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields and the fingerprint as the API and the webhook have them; JSON can hold them."""
        return {
            "fingerprint": self.fingerprint,
            "key": self.key,
            "relearn_command": self.relearn_command,
            "silence_command": self.silence_command,
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "state": self.state.value,
            "previous": self.previous.value,
            "causes": [cause.to_dict() for cause in self.causes],
            "links": [asdict(link) for link in self.links],
            "related": [asdict(rule) for rule in self.related],
        }
