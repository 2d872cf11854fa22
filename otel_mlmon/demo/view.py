"""Shows the state of the demo as a screen of the terminal, or as one line of text.

Pure functions: a `ApiSnapshot` in, text out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from otel_mlmon.demo.story import ApiSnapshot, DemoAct, DemoOutcome, Document, ExpectedAlert, find_latest_alerts

SCREEN_CELLS: Final = 80
BAR_CELLS: Final = 24
EVIDENCE_CELLS: Final = 12
UNKNOWN: Final = "?"
"""Shown for a number that is not known yet, null in the API."""

EIGHTHS: Final = " ▏▎▍▌▋▊▉"
STATUS_STYLES: Final = {"learning": "cyan", "ok": "green", "weak": "green", "drift": "bold red"}
STATE_STYLES: Final = {"firing": "bold red", "pending": "yellow", "ok": "green"}


def render_screen(moment: ApiSnapshot, act: DemoAct, elapsed_s: float) -> RenderableType:
    """Renders the current state of the demo as a screen of the terminal, 80 columns wide.

    Args:
        moment: The last moment.
        act: The present act.
        elapsed_s: Seconds since the demo began.
    """
    style = "bold red" if act.name == "shift" else "bold green"
    head = Text.assemble((act.headline, style), f"  {elapsed_s:.0f} s")
    parts: list[RenderableType] = [head]
    if moment.model is None:
        parts.append(Text("Waiting for the first telemetry …", "dim"))
    else:
        head.append(f"  {moment.model['predictions']} predictions")
        parts.append(_render_model_performance(moment.model))
        streams = moment.model["streams"]
        parts += [_render_distribution(stream) for stream in streams if stream["stream"] == "prediction.label"]
        parts += [_render_evidence(streams), *map(_render_alert, find_latest_alerts(moment.alerts).values())]
    return Panel(Group(*parts), title="otel-mlmon demo", width=SCREEN_CELLS)


def format_status_line(moment: ApiSnapshot, act: DemoAct, elapsed_s: float) -> str:
    """Formats the current state of the demo as one line of text, for logs and pipes."""
    start = f"{elapsed_s:5.1f} s  {act.name:<8}"
    if moment.model is None:
        return f"{start}  waiting for the first telemetry"
    streams = moment.model["streams"]
    return f"{start}  {_format_model_performance(moment.model)}  {_format_stream_progress(streams)}"


def format_demo_outcome(outcome: DemoOutcome) -> str:
    """Formats the outcome of the demo as text: the alerts that were expected and came, or what went wrong."""
    alerts = [_format_alert(alert) for alert in outcome.alerts]
    if outcome.has_passed:
        return "\n".join(["As expected; no alert before the shift, and all are resolved:", *alerts])
    return "\n".join([*alerts, "Not as expected:", *(f"  - {problem}" for problem in outcome.problems)])


def draw_text_bar(ratio: float, cells: int = BAR_CELLS) -> str:
    """Draws a horizontal bar of text, `cells` characters wide and filled to a ratio in [0, 1]."""
    eighths = round(min(max(ratio, 0.0), 1.0) * cells * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (EIGHTHS[part] if part else "")).ljust(cells)


def format_duration(seconds: float | None) -> str:
    """Formats seconds with three digits and a unit: `21.4 µs`, `1.2 ms`, `3 s`; `?` for None."""
    if seconds is None:
        return UNKNOWN
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def format_share(ratio: float | None) -> str:
    """Formats a share as a percentage: `10.2 %`; `?` for None."""
    return UNKNOWN if ratio is None else f"{100 * ratio:.1f} %"


def _format_model_performance(model: Document) -> str:
    latency = model["latency"]
    times = "  ".join(f"{name} {format_duration(latency[f'{name}_s'])}" for name in ("p50", "p95", "p99"))
    return f"{times}  {model['throughput_per_s']:.0f}/s  errors {format_share(model['error_ratio'])}"


def _format_stream_progress(streams: Sequence[Document]) -> str:
    """Formats how far the reference is learned, or the evidence of the stream nearest to its alarm line."""
    watched = [stream for stream in streams if stream["state"] in ("ok", "weak", "drift")]
    if watched:
        top = max(watched, key=lambda stream: float(stream["log10_evidence"]))
        text = f"evidence {_format_evidence(top)} ({top['stream']})"
    elif streams:
        text = f"reference {_format_evidence(max(streams, key=lambda stream: int(stream['learned_count'])))}"
    else:
        return "no streams"
    waiting = len(streams) - len(watched)
    return f"{text}, {waiting} still learning" if watched and waiting else text


def _render_model_performance(model: Document) -> RenderableType:
    name = f"{model['name']} {model['version']}".strip()
    return Text.assemble((name, "bold"), f"  {_format_model_performance(model)}")


def _render_distribution(stream: Document) -> RenderableType:
    """Renders the shares of the classes in the reference and now, side by side."""
    table = Table(box=None, title="Predicted classes", title_justify="left", padding=(0, 1))
    table.add_column("class")
    table.add_column("reference", style="dim")
    table.add_column("now")
    # While the reference is learned the processor may have no shares to give.
    rows = zip(stream["bins"], stream["reference_shares"], stream["current_shares"], strict=False)
    for name, reference, current in sorted(rows):
        if reference or current:
            colour = "red" if abs(current - reference) > 0.1 else "green"
            now = Text(f"{draw_text_bar(current)} {format_share(current)}", colour)
            table.add_row(Text(name), f"{draw_text_bar(reference)} {format_share(reference)}", now)
    return table


def _render_evidence(streams: Sequence[Document]) -> RenderableType:
    """Renders a bar of the evidence of drift for each stream, up to its alarm line."""
    table = Table(box=None, title="Evidence of drift", title_justify="left", padding=(0, 1, 0, 0))
    for column in ("stream", "→ alarm line", "evidence 10^", "state", "mean"):
        table.add_column(column, no_wrap=True)
    for stream in streams:
        style = STATUS_STYLES[stream["state"]]
        table.add_row(
            Text(stream["stream"]),
            Text(f"{draw_text_bar(_measure_stream_progress(stream), EVIDENCE_CELLS)}▏", style),
            _format_evidence(stream),
            Text(stream["state"], style),
            _format_stream_mean(stream),
        )
    return table


def _measure_stream_progress(stream: Document) -> float:
    """Returns the share of a stream's reference that is learned, or of its alarm line that evidence reached."""
    if stream["state"] == "learning":
        return float(stream["learned_count"] / max(stream["required_count"], 1))
    return float(stream["log10_evidence"] / max(stream["log10_alarm_line"], 1e-9))


def _format_evidence(stream: Document) -> str:
    if stream["state"] == "learning":
        if stream.get("calibrating") or stream["learned_count"] >= stream["required_count"]:
            return "noise measured"
        return f"{stream['learned_count']} of {stream['required_count']} values"
    return f"{stream['log10_evidence']:.1f} of {stream['log10_alarm_line']:.1f}"


def _format_stream_mean(stream: Document) -> str:
    """Formats the mean of a stream in the reference and now, as far as they are known."""
    values = [value for value in (stream["mean"]["reference"], stream["mean"]["current"]) if value is not None]
    is_duration = stream["stream"] == "latency"
    return " → ".join(format_duration(value) if is_duration else f"{value:.2f}" for value in values)


def _render_alert(alert: Document) -> RenderableType:
    state = "resolved" if alert["state"] == "ok" else alert["state"]
    causes = "; ".join(f"{c['stream']}: {c['reference']} → {c['current']}" for c in alert["causes"][:2])
    return Text.assemble((f"{state} {alert['rule']}", STATE_STYLES.get(alert["state"], "yellow")), f"  {causes}")


def _format_alert(alert: ExpectedAlert) -> str:
    end = "not resolved" if alert.resolved_after_s is None else f"resolved at {alert.resolved_after_s:.1f} s"
    return (
        f"  + {alert.rule} ({alert.stream}): {alert.before} → {alert.now}, "
        f"{alert.value:.2f} where {alert.bound:.2f} is tolerated; "
        f"fired {alert.fired_after_s:.1f} s after the shift began, {end}."
    )
