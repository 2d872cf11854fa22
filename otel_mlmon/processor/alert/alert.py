"""Defines `Alert`: one change of state of one alert rule of one model, and what to do about it."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal
from urllib.parse import quote

from otel_mlmon import semconv
from otel_mlmon.types import ModelKey

Severity = Literal["warning", "critical"]

CRITICAL_TOTAL_VARIATION: Final = 0.25
"""A drift is critical if a quarter of the data moved."""
FAST_BURN_RATE: Final = 14.4
"""Slow or failed calls are critical at so many times the ratio that is allowed: in an hour 2 % of a month's budget.

Source: Google, The Site Reliability Workbook, chapter 5, table 5-8."""


FREQUENT_SHARE: Final = 0.05
"""The share of predictions from which on a class is so frequent that its loss is critical."""
LOST_RATIO: Final = 0.05
"""A class that is left with less of its share than this is lost."""
MIN_LOST_COUNT: Final = 50.0
"""Predictions of a class that there would have been without its loss: of fewer some may be missing by chance."""


def find_lost_class(
    bins: Sequence[str], reference_shares: Sequence[float], current_shares: Sequence[float], *, least_share: float
) -> tuple[str, float, float] | None:
    """Finds the largest class that is hardly predicted any more: its name, and its share before and now.

    Args:
        bins: K names of classes; not those of missing values and of all others.
        reference_shares: Shape (K,), in [0, 1].
        current_shares: Shape (K,), in [0, 1].
        least_share: The share before from which on a class counts, (0, 1).
    """
    losses = [
        (before - now, name, before, now)
        for name, before, now in zip(bins, reference_shares, current_shares, strict=False)
        if name not in (semconv.MISSING, semconv.OTHER) and before >= least_share and now < LOST_RATIO * before
    ]
    return max(losses)[1:] if losses else None


def compute_critical_ratio(allowed: float) -> float:
    """Returns the ratio of slow or failed calls that is critical at once: a fast burn of the budget.

    Of a large budget, which a fast burn could never reach, it is critical to be halfway to no call that is good.

    Args:
        allowed: The ratio of calls that is allowed, (0, 1).
    """
    return min(FAST_BURN_RATE * allowed, (1 + allowed) / 2)


RELEARNABLE: Final = frozenset({"learned", "rolling", "hour_of_week"})
"""Origins of references that can be learned again."""
MAX_NAMED_STREAMS: Final = 5
DEFAULT_URL: Final = "http://127.0.0.1:8080"
"""The web port that the command asks unless it is given another."""
LOOPBACK_OF: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 (read, not listened on)
"""Where a processor that listens on all addresses is reached from its own machine."""
SILENCE_FOR: Final = "2h"
"""How long the command of an alert silences it."""


class RuleState(str, Enum):
    """The state of an alert rule, with the values that the API and `semconv.ALERT_STATES` have."""

    OK = "ok"
    PENDING = "pending"
    FIRING = "firing"
    NO_DATA = "no_data"
    ERROR = "error"
    UNKNOWN = "unknown"
    """Never one of an alert: an active rule that cannot judge this model, such as `accuracy` without labelled data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertCause:
    """A stream that breaches an alert rule, with how much its distribution moved in numbers and in words."""

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
    budget_spent: float = 0.0
    """The share of a 30-day budget that was spent since the onset, at the traffic since then; 0 without a budget."""
    detectable_shift: float | None = None
    """The smallest total variation that would be found with probability 0.9 within a day; null if it is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertLink:
    """A web address that an alert points people to, such as a dashboard or a runbook."""

    name: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleTrace:
    """A distributed trace of a model call that an alert is about."""

    trace_id: str
    url: str
    """Where it is looked at; empty if no address is configured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertAddresses:
    """The web addresses that alerts point to. In all but `web`, names in braces such as `{model}` are filled in."""

    web: str = ""
    """The `host:port` of the processor's web port; empty if it has none."""
    dashboard: str = ""
    """With `{model}`, `{version}`, `{environment}`, `{rule}`; empty for the processor's own page."""
    runbook: str = ""
    """The address of the runbooks without the last part, which is the rule; empty for those at the web port."""
    trace: str = ""
    """With `{trace_id}`, and the others; empty if traces have no address."""
    others: tuple[AlertLink, ...] = ()
    """With the same names as a dashboard."""


NO_ADDRESSES: Final = AlertAddresses()


@dataclass(frozen=True, slots=True, kw_only=True)
class RelatedRule:
    """Another alert rule of the same model that fires since about the same time, probably of the same cause."""

    rule: str
    title: str
    stream: str
    """The first of its causes; empty if it has none."""
    onset_ns: int
    """Unix nanoseconds; 0 if that is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One change of state of one alert rule. Firing and ending are notified; `pending` is seen in the API only."""

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
    causes: tuple[AlertCause, ...] = ()
    """Ranked, the largest contribution first."""
    exemplars: tuple[str, ...] = ()
    """ExampleTrace ids to look at."""
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
    """The news of an update that no notification had before: streams, and `severity`."""
    related: tuple[RelatedRule, ...] = ()
    """Other rules of the model that fire since about the same time."""
    silence: str = ""
    """Why nobody is notified now: who silenced it until when, or a maintenance window; empty if nothing does."""
    missed: tuple[str, ...] = ()
    """Alerts that began and ended while this recipient could not be reached, a line each."""
    addresses: AlertAddresses = NO_ADDRESSES
    is_test: bool = False
    """Whether somebody tests the notifiers, and nothing is wrong."""

    @property
    def model_key(self) -> ModelKey:
        """The name, version and environment of the model that the alert is about."""
        return ModelKey(self.model, self.version, self.environment)

    @property
    def key(self) -> str:
        """The text that identifies a notification of an alert: the same in every attempt to send it, and unique."""
        return f"{self.fingerprint}-{self.time_ns}-{self.sequence}"

    @property
    def is_update(self) -> bool:
        """Whether the alert was notified of before and goes on: this notification only tells news of it."""
        return self.state is self.previous and not self.is_resolved

    @property
    def is_beginning(self) -> bool:
        """Whether this notification is the first one of the alert."""
        return self.previous in (RuleState.OK, RuleState.PENDING) and not self.is_resolved

    @property
    def fingerprint(self) -> str:
        """The 16 hex digits that all alerts of this model, version, environment and rule share."""
        text = "\0".join((self.model, self.version, self.environment, self.rule))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def is_resolved(self) -> bool:
        """Whether this change of state ends an alert that was firing."""
        return self.state is RuleState.OK

    @property
    def model_id(self) -> str:
        """The text that identifies the model in the API and on the command line."""
        return self.model_key.id

    @property
    def web_url(self) -> str:
        """The URL of the processor's web pages on its own machine; empty if it has none or its port is unknown.

        Of port 0 the operating system chose another one.
        """
        host, _, port = self.addresses.web.rpartition(":")
        return f"http://{LOOPBACK_OF.get(host, host)}:{port}" if int(port or 0) else ""

    @property
    def links(self) -> tuple[AlertLink, ...]:
        """The links to the dashboard, the runbook and other configured addresses, as far as each has an address."""
        web, runbook = self.web_url, self.addresses.runbook
        dashboard = self.addresses.dashboard or (f"{web}/alerts/{self.fingerprint}" if web else "")
        base = runbook.rstrip("/") or (f"{web}/runbooks" if web else "")
        links = [
            AlertLink(name="dashboard", url=dashboard),
            AlertLink(name="runbook", url=f"{base}/{{rule}}.md" if base else ""),
            *self.addresses.others,
        ]
        return tuple(
            AlertLink(name=link.name, url=self._fill_address(link.url))
            for link in links
            if link.url.startswith(("http://", "https://"))
        )

    @property
    def traces(self) -> tuple[ExampleTrace, ...]:
        """The example traces of model calls that the alert is about, the newest first."""
        address = self.addresses.trace
        return tuple(
            ExampleTrace(trace_id=trace_id, url=self._fill_address(address, trace_id=trace_id) if address else "")
            for trace_id in self.exemplars
        )

    @property
    def silence_command(self) -> str:
        """The shell command that silences this rule and model for two hours; empty if the alert has ended."""
        if self.is_resolved or not self.web_url:
            return ""
        options = ["--rule", glob.escape(self.rule), "--for", SILENCE_FOR, *self._list_web_options()]
        return _join_shell_command(["alert", "silence"], glob.escape(self.model_id), options)

    @property
    def relearn_command(self) -> str:
        """The shell command that accepts the drift as the new normal, to be run on the processor's machine.

        It names the streams that drift, or none of them, which means all, if they are more than `MAX_NAMED_STREAMS`.
        Empty if no cause is against a learned reference, or the web port is not known.
        """
        names = [cause.stream for cause in self.causes if cause.origin in RELEARNABLE]
        if not names or not self.web_url:
            return ""
        options = ["--model-version", self.version] if self.version else []
        options += [word for name in names if len(names) <= MAX_NAMED_STREAMS for word in ("--stream", name)]
        return _join_shell_command(["reference", "relearn"], self.model_id, [*options, *self._list_web_options()])

    def _list_web_options(self) -> list[str]:
        return ["--url", self.web_url] if self.web_url != DEFAULT_URL else []

    def _fill_address(self, address: str, **values: str) -> str:
        """Returns a URL in which every name in braces is replaced by its value, escaped as a part of a URL."""
        values |= {"model": self.model, "version": self.version, "environment": self.environment, "rule": self.rule}
        return re.sub(
            r"\{(\w+)\}",
            lambda place: quote(values[place[1]], safe="", errors="replace") if place[1] in values else place[0],
            address,
        )


_PROVIDER_NAMES: Final = {
    "CUDAExecutionProvider": "CUDA (NVIDIA GPU)",
    "TensorrtExecutionProvider": "TensorRT (NVIDIA GPU)",
    "NvTensorRTRTXExecutionProvider": "TensorRT RTX (NVIDIA GPU)",
    "ROCMExecutionProvider": "ROCm (AMD GPU)",
    "MIGraphXExecutionProvider": "MIGraphX (AMD GPU)",
    "DmlExecutionProvider": "DirectML (GPU)",
    "WebGpuExecutionProvider": "WebGPU",
    "CoreMLExecutionProvider": "Core ML (Apple)",
    "OpenVINOExecutionProvider": "OpenVINO (Intel)",
}


def name_execution_provider(provider: str) -> str:
    """Names an execution provider of onnxruntime as people call it: `CPU`, `CUDA (NVIDIA GPU)`."""
    return _PROVIDER_NAMES.get(provider) or provider.removesuffix("ExecutionProvider") or provider


def quote_shell(text: str) -> str:
    """Quotes a text for a POSIX shell; characters that do not print are spelled in the shell's `$'…'` form."""
    if text and all((char.isalnum() and char.isascii()) or char in "._-/@:" for char in text):
        return text
    if text.isprintable():
        return "'" + text.replace("'", "'\"'\"'") + "'"
    return f"$'{''.join(map(_escape_shell_character, text))}'"


def _escape_shell_character(char: str) -> str:
    if char.isprintable() and char not in "\\'":
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode(errors="surrogatepass"))


def _join_shell_command(command: list[str], name: str, options: list[str]) -> str:
    """Joins an `otel-mlmon` command for a shell; a name that looks like an option comes last, after `--`."""
    words = [*command, *options, "--", name] if name.startswith("-") else [*command, name, *options]
    return " ".join(["otel-mlmon", *map(quote_shell, words)])
