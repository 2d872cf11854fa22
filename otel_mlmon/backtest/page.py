"""The report as one HTML page that needs nothing else: no network, no script, light or dark as the reader has it."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Final

from otel_mlmon.backtest import pictures
from otel_mlmon.backtest.report import Report, StreamReport
from otel_mlmon.processor.alert.message import format_percent

STYLE: Final = """
:root{color-scheme:light dark;--paper:#fbfbfa;--card:#fff;--ink:#1c2128;--soft:#667080;--rule:#e3e5e8;
--reference:#b4bdc9;--now:#2f6fde;--alarm:#d1383d;--alarm-soft:#fbe9e9;--ok:#2e8b57;--ok-soft:#e6f3eb;
--amber:#b87a0a;--amber-soft:#faf0dc;--teal:#1d7f92;--teal-soft:#e2f2f5}
@media (prefers-color-scheme:dark){:root{--paper:#13161a;--card:#1b1f25;--ink:#e4e7eb;--soft:#97a1af;--rule:#2c323a;
--reference:#525c6a;--now:#6ea2ff;--alarm:#ff6b6e;--alarm-soft:#3b2023;--ok:#5cc48a;--ok-soft:#1b3326;
--amber:#e5b04f;--amber-soft:#372b14;--teal:#59bfd3;--teal-soft:#16323a}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1060px;margin:0 auto;padding:40px 24px 72px}
h1{font-size:27px;line-height:1.25;margin:0 0 8px;letter-spacing:-.01em;font-weight:650}
h2{font-size:13px;margin:40px 0 12px;font-weight:600;color:var(--soft)}
p{margin:0}.soft,dt,footer{color:var(--soft)}.names{font-size:17px;margin:0 0 20px;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:16px 24px;margin:24px 0 0;
padding:16px 0;border-top:1px solid var(--rule);border-bottom:1px solid var(--rule)}
dt{font-size:12px}dd{margin:2px 0 0;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.card{background:var(--card);border:1px solid var(--rule);border-radius:10px;margin:0 0 14px;overflow:hidden}
.wide{padding:18px 18px 8px;overflow-x:auto}.wide svg{min-width:720px}
details>summary{display:flex;gap:10px 14px;align-items:baseline;flex-wrap:wrap;padding:14px 18px;cursor:pointer;
list-style:none}
summary::-webkit-details-marker{display:none}summary:focus-visible{outline:2px solid var(--now);outline-offset:-2px}
summary b{font-size:16px;font-weight:620;overflow-wrap:anywhere}
summary .moved{font-variant-numeric:tabular-nums}summary .soft{margin-left:auto;font-size:13px}
.badge{font-size:12px;font-weight:600;padding:2px 9px;border-radius:99px;white-space:nowrap}
.alarm{background:var(--alarm-soft);color:var(--alarm)}.recovered{background:var(--amber-soft);color:var(--amber)}
.ok{background:var(--ok-soft);color:var(--ok)}.unknown{background:var(--teal-soft);color:var(--teal)}
.pictures{display:grid;grid-template-columns:1fr 1fr;gap:20px 32px;padding:6px 18px 18px}
.pictures>div{min-width:0}.pictures h3{font-size:12px;font-weight:600;color:var(--soft);margin:0 0 6px}
@media (max-width:760px){.pictures{grid-template-columns:1fr}}
.key{display:inline-block;width:9px;height:9px;border-radius:2px;margin:0 4px 0 10px}.key:first-child{margin-left:0}
.dashed{display:inline-block;width:20px;
border-top:1.5px dashed var(--alarm);margin:0 5px 3px 12px;vertical-align:middle}
.pictures svg+h3{margin-top:14px}
.facts{padding:0 18px 16px;font-size:13px;color:var(--soft);font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th{font-size:12px;font-weight:600;color:var(--soft);text-align:left}
th,td{padding:7px 12px 7px 0;border-bottom:1px solid var(--rule);vertical-align:top;overflow-wrap:anywhere}
footer{font-size:13px;margin-top:32px}
svg{display:block;width:100%;height:auto;font:11.5px system-ui,-apple-system,"Segoe UI",sans-serif}
svg .label{fill:var(--ink)}svg .value,svg .tick{fill:var(--soft);font-size:10.5px}
svg .reference{fill:var(--reference)}svg .now{fill:var(--now)}
svg .grid{stroke:var(--rule);fill:none}svg .line{stroke:var(--now);stroke-width:1.8;fill:none;stroke-linejoin:round}
svg .area{fill:var(--now);opacity:.1}svg .limit{stroke:var(--alarm);stroke-dasharray:4 3;fill:none}
svg .moment{stroke:var(--alarm);stroke-width:1;opacity:.45;fill:none}
svg .spot{fill:var(--alarm);stroke:var(--card);stroke-width:1.5}
svg .drift{fill:var(--alarm)}svg .calibrating{fill:none;stroke:var(--rule)}
svg .quiet0{fill:var(--rule)}svg .quiet1{fill:var(--amber);opacity:.3}svg .quiet2{fill:var(--amber);opacity:.5}
svg .quiet3{fill:var(--amber);opacity:.75}svg .quiet4{fill:var(--amber)}
@media print{details{break-inside:avoid}}
"""


def page(report: Report) -> str:
    """The whole document."""
    body = "".join((_head(report), _timeline(report), _streams(report), _alerts(report), _rest(report)))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(_title(report))}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _title(report: Report) -> str:
    if report.alarmed:
        first = report.alarmed[0].first_alarm_window
        return f"An alarm in window {first}, {len(report.alarmed)} of {len(report.judged)} streams"
    return "No alarm" if any(stream.status == "ok" for stream in report.streams) else "Nothing could be judged"


def _head(report: Report) -> str:
    names = ", ".join(stream.stream for stream in report.alarmed)
    when = report.alarmed[0].first_alarm if report.alarmed else None
    facts = {
        "Data": Path(report.data).name,
        "Reference": Path(report.reference).name,
        "Windows": f"{report.windows} of {report.window}",
        "Rows": None if report.rows is None else f"{report.rows:,}".replace(",", " "),
        "First alarm": when,
        "False alarms accepted": report.false_alarms,
    }
    items = "".join(f"<div><dt>{key}</dt><dd>{escape(value)}</dd></div>" for key, value in facts.items() if value)
    said = f'<p class="names">{escape(names)}</p>' if names else ""
    return f"<header><h1>{escape(_title(report))}</h1>{said}<dl>{items}</dl></header>"


def _timeline(report: Report) -> str:
    if not any(stream.points for stream in report.streams):
        return ""
    keys = (
        ("var(--rule)", "no evidence"),
        ("var(--amber)", "some evidence"),
        ("var(--alarm)", "alarm"),
    )
    legend = "".join(f'<span class="key" style="background:{colour}"></span>{text}' for colour, text in keys)
    picture = pictures.timeline(report.streams, report.windows)
    return f'<h2>Every stream, window by window</h2><div class="card wide">{picture}<p class="facts">{legend}</p></div>'


def _streams(report: Report) -> str:
    cards = "".join(_card(stream) for stream in report.judged if stream.points)
    return f"<h2>Stream by stream</h2>{cards}" if cards else ""


def _card(stream: StreamReport) -> str:
    moved = f'<span class="moved">{escape(stream.before)} → {escape(stream.now)}</span>' if stream.before else ""
    alarm = f"window {stream.first_alarm_window}" if stream.is_alarm else ""
    name = f"{stream.model} {stream.stream}".strip()
    head = (
        f'<b>{escape(name)}</b><span class="badge {stream.status}">{stream.status}</span>'
        f'{moved}<span class="soft">{alarm}</span>'
    )
    legend = (
        '<span class="key" style="background:var(--reference)"></span>reference'
        f'<span class="key" style="background:var(--now)"></span>window {stream.compared_window}'
    )
    shown = "" if not stream.bins else (
        f'<div class="pictures"><div><h3>{legend}</h3>{pictures.bars(stream)}</div>'
        f"<div><h3>Evidence, in powers of ten{_dashed('the alarm line')}</h3>{pictures.evidence(stream)}"
        f"<h3>Share of the values that moved{_dashed(f'{format_percent(stream.tolerance)}, tolerated')}</h3>"
        f"{pictures.effect(stream)}</div></div>"
    )  # fmt: skip
    is_open = " open" if stream.is_alarm else ""
    facts = f'<p class="facts">{_facts(stream)}</p>'
    return f'<details class="card"{is_open}><summary>{head}</summary>{shown}{facts}</details>'


def _dashed(words: str) -> str:
    return f'<span class="dashed"></span>{escape(words)}'


def _facts(stream: StreamReport) -> str:
    facts = [stream.kind, f"n = {stream.count}", f"reference n = {stream.reference_count}"]
    if stream.why:
        facts.insert(0, stream.why)
    if stream.onset_window is not None:
        facts.append(f"onset in window {stream.onset_window}" + (f" ({stream.onset})" if stream.onset else ""))
    if stream.total_variation is not None:
        facts.append(
            f"total variation {format_percent(stream.total_variation)}, tolerated {format_percent(stream.tolerance)}"
        )
    if stream.psi is not None:
        facts.append(f"PSI {stream.psi:.3f}")
    if stream.design_effect is not None:
        facts.append(f"design effect {stream.design_effect:.1f}")
    return escape(" · ".join(facts))


def _alerts(report: Report) -> str:
    if not report.alerts:
        return ""
    rows = "".join(
        f"<tr><td>{alert.window}</td><td>{escape(alert.at or '–')}</td><td>{alert.state}</td><td>{alert.severity}</td>"
        f"<td>{alert.rule.replace('_', ' ')}</td><td>{escape(', '.join(alert.causes))}</td></tr>"
        for alert in report.alerts
    )
    head = "".join(f"<th>{name}</th>" for name in ("Window", "When", "State", "Severity", "Rule", "Causes"))
    return f"<h2>What people would have been told</h2><table><tr>{head}</tr>{rows}</table>"


def _rest(report: Report) -> str:
    rows = "".join(
        f"<tr><td>{escape(stream.stream)}</td><td>{escape(stream.why)}</td></tr>"
        for stream in report.streams
        if stream.status in ("left out", "unknown")
    )
    table = f"<h2>Not judged</h2><table><tr><th>Column</th><th>Why</th></tr>{rows}</table>" if rows else ""
    notes = "".join(f"<p>{escape(note)}</p>" for note in report.notes)
    return f"{table}<footer>{notes}</footer>"
