"""How the demo looks: a moment as a renderable for the terminal, or as one plain line.

Pure functions: a `Moment` in, something to print out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from otel_mlmon.demo.story import Act, Document, Finding, Moment, Verdict, newest

SCREEN_CELLS: Final = 80
BAR_CELLS: Final = 24
EVIDENCE_CELLS: Final = 12
UNKNOWN: Final = "?"
"""The API has null for a number that is not known yet."""

EIGHTHS: Final = " ▏▎▍▌▋▊▉"
STATUS_STYLES: Final = {"learning": "cyan", "ok": "green", "drift": "bold red"}
STATE_STYLES: Final = {"firing": "bold red", "pending": "yellow", "ok": "green"}


def render(moment: Moment, act: Act, elapsed_s: float) -> RenderableType:
    """The whole screen, 80 columns wide.

    Args:
        moment: What the processor said last.
        act: What is going on.
        elapsed_s: Since the demo began.
    """
    style = "bold red" if act.name == "shift" else "bold green"
    head = Text.assemble((act.headline, style), f"  {elapsed_s:.0f} s")
    parts: list[RenderableType] = [head]
    if moment.model is None:
        parts.append(Text("Waiting for the first telemetry …", "dim"))
    else:
        head.append(f"  {moment.model['predictions']} predictions")
        parts.append(_performance(moment.model))
        streams = moment.model["streams"]
        parts += [_distribution(stream) for stream in streams if stream["stream"] == "prediction.label"]
        parts += [_evidence(streams), *map(_alert_line, newest(moment.alerts).values())]
    return Panel(Group(*parts), title="otel-mlmon demo", width=SCREEN_CELLS)


def line(moment: Moment, act: Act, elapsed_s: float) -> str:
    """The moment as one plain line, for logs and pipes."""
    start = f"{elapsed_s:5.1f} s  {act.name:<8}"
    if moment.model is None:
        return f"{start}  waiting for the first telemetry"
    streams = moment.model["streams"]
    return f"{start}  {_performance_words(moment.model)}  {_progress_words(streams)}"


def verdict_text(verdict: Verdict) -> str:
    """The end of the story: what was seen, or what was missing."""
    found = [_finding_line(finding) for finding in verdict.findings]
    if verdict.passed:
        return "\n".join(["Seen, as expected; nothing before, all resolved after:", *found])
    return "\n".join([*found, "Not as expected:", *(f"  - {sentence}" for sentence in verdict.missing)])


def bar(ratio: float, cells: int = BAR_CELLS) -> str:
    """A bar of `cells` columns, filled to `ratio` (cut to [0, 1]) in steps of an eighth of a column."""
    eighths = round(min(max(ratio, 0.0), 1.0) * cells * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (EIGHTHS[rest] if rest else "")).ljust(cells)


def duration(seconds: float | None) -> str:
    """Three digits and the unit that suits: `21.4 µs`, `1.2 ms`, `3 s`; `?` while it is not known."""
    if seconds is None:
        return UNKNOWN
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def share(ratio: float | None) -> str:
    """A share as people say it: `10.2 %`; `?` while it is not known."""
    return UNKNOWN if ratio is None else f"{100 * ratio:.1f} %"


def _performance_words(model: Document) -> str:
    latency = model["latency"]
    times = "  ".join(f"{name} {duration(latency[f'{name}_s'])}" for name in ("p50", "p95", "p99"))
    return f"{times}  {model['throughput_per_s']:.0f}/s  errors {share(model['error_ratio'])}"


def _progress_words(streams: Sequence[Document]) -> str:
    """The stream that is furthest: with its evidence, or with its reference while there is none."""
    watched = [stream for stream in streams if stream["status"] in ("ok", "drift")]
    if watched:
        top = max(watched, key=lambda stream: float(stream["log10_evidence"]))
        words = f"evidence {_evidence_words(top)} ({top['stream']})"
    elif streams:
        words = f"reference {_evidence_words(max(streams, key=lambda stream: int(stream['learned'])))}"
    else:
        return "no streams"
    waiting = len(streams) - len(watched)
    return f"{words}, {waiting} not ready" if watched and waiting else words


def _performance(model: Document) -> RenderableType:
    name = f"{model['name']} {model['version']}".strip()
    return Text.assemble((name, "bold"), f"  {_performance_words(model)}")


def _distribution(stream: Document) -> RenderableType:
    """Reference and current shares of the classes, side by side."""
    table = Table(box=None, title="Predicted classes", title_justify="left", padding=(0, 1))
    table.add_column("class")
    table.add_column("reference", style="dim")
    table.add_column("now")
    # While the reference is learned the processor may have no shares to give.
    rows = zip(stream["bins"], stream["reference_shares"], stream["current_shares"], strict=False)
    for name, reference, current in sorted(rows):
        if reference or current:
            colour = "red" if abs(current - reference) > 0.1 else "green"
            now = Text(f"{bar(current)} {share(current)}", colour)
            table.add_row(Text(name), f"{bar(reference)} {share(reference)}", now)
    return table


def _evidence(streams: Sequence[Document]) -> RenderableType:
    """Each stream's evidence on its way to the alarm line."""
    table = Table(box=None, title="Evidence of drift", title_justify="left", padding=(0, 1, 0, 0))
    for column in ("stream", "→ alarm line", "log10", "status", "mean"):
        table.add_column(column, no_wrap=True)
    for stream in streams:
        style = STATUS_STYLES[stream["status"]]
        table.add_row(
            Text(stream["stream"]),
            Text(f"{bar(_progress(stream), EVIDENCE_CELLS)}▏", style),
            _evidence_words(stream),
            Text(stream["status"], style),
            _mean_words(stream["mean"]),
        )
    return table


def _progress(stream: Document) -> float:
    """How far the stream is: with its reference while it learns, then towards the alarm line."""
    if stream["status"] == "learning":
        return float(stream["learned"] / max(stream["learn"], 1))
    return float(stream["log10_evidence"] / max(stream["log10_alarm_line"], 1e-9))


def _evidence_words(stream: Document) -> str:
    if stream["status"] == "learning":
        return f"{stream['learned']} of {stream['learn']}"
    return f"{stream['log10_evidence']:.1f} of {stream['log10_alarm_line']:.1f}"


def _mean_words(mean: Document) -> str:
    values = (mean["reference"], mean["current"])
    if values == (None, None):
        return ""
    return " → ".join(UNKNOWN if value is None else f"{value:.2f}" for value in values)


def _alert_line(alert: Document) -> RenderableType:
    state = "resolved" if alert["state"] == "ok" else alert["state"]
    causes = "; ".join(f"{c['stream']}: {c['reference']} → {c['current']}" for c in alert["causes"][:2])
    return Text.assemble((f"{state} {alert['rule']}", STATE_STYLES.get(alert["state"], "yellow")), f"  {causes}")


def _finding_line(finding: Finding) -> str:
    end = "not resolved" if finding.resolved_after_s is None else f"resolved at {finding.resolved_after_s:.1f} s"
    return (
        f"  + {finding.rule} ({finding.stream}): {finding.before} → {finding.now}, "
        f"{finding.value:.2f} where {finding.bound:.2f} is tolerated; "
        f"fired {finding.fired_after_s:.1f} s after the camera dimmed, {end}."
    )
