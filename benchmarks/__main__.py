"""`make bench`: what monitoring costs, written to benchmarks/README.md.

Method: one process; blocks of calls of every variant in turn, round after round, so that a drifting machine drifts for
all of them; each call timed by itself; CPU is the process's, all threads, with the background work of a block waited
for and counted in. A figure is the median over rounds of the difference to the bare block of the same round.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported; its own telemetry thread is not ours

import argparse
import platform
import statistics
import sys
from pathlib import Path

from benchmarks.footprint import Import, Memory, import_cost, memory
from benchmarks.hot_path import CASES, Measured, measure
from benchmarks.run_methods import HEADER, measure_run_methods, method_rows
from benchmarks.sentry import ending_aims, measure_sentry

WHY = """\
**Why it is more than aimed at.** Alone in a loop the copy of a call takes 0.5 µs: two looks at the clock 0.15, two
copies 0.12, the rest the interpreter's steps. Between two runs of a model the caches are cold and it takes 0.9 to
1.8, depending on the machine's phase; the aim was set on a quieter one. In the tight loop our thread reads 4,096
calls every 40 to 60 ms: the two threads share one interpreter, and what one wrote the other must fetch. Reading takes
some 1.5 µs a call by itself (0.6 of it taking the calls out of the buffer), and the rest of what is added there is
that sharing.
"""

AIMED_AT = "10→16→4, batch 1"
"""Cases with an aim."""

README = Path(__file__).parent / "README.md"


def microseconds(values: list[float]) -> str:
    """Returns the median of nanoseconds, as microseconds."""
    return f"{statistics.median(values) / 1000:.2f}"


def rows_of(case: str, measured: dict[str, Measured]) -> list[str]:
    """Returns the table rows of one case."""
    bare = measured["bare"]
    rows = []
    for name, variant in measured.items():
        added_p50 = [a - b for a, b in zip(variant.p50_ns, bare.p50_ns, strict=True)]
        added_cpu = [a - b for a, b in zip(variant.cpu_ns, bare.cpu_ns, strict=True)]
        added = ("–", "–") if name == "bare" else (microseconds(added_p50), microseconds(added_cpu))
        rows.append(
            f"| {case} | {name} | {microseconds(variant.p50_ns)} | {added[0]} | "
            f"{microseconds(variant.p999_ns)} | {microseconds(variant.cpu_ns)} | {added[1]} |"
        )
    return rows


def aim(case: str, measured: dict[str, Measured]) -> str:
    """Returns a sentence on the aimed-at costs, by ratios: 1 µs and 2.5 µs of CPU where the bare run takes 5.5 µs."""
    ours = measured["otel_mlmon"]

    def ratio(part: list[float], whole: list[float]) -> float:
        return statistics.median(a / b for a, b in zip(part, whole, strict=True))

    def added(variant: Measured) -> list[float]:
        return [a - b for a, b in zip(variant.p50_ns, measured["bare"].p50_ns, strict=True)]

    added_cpu = [a - b for a, b in zip(ours.cpu_ns, measured["bare"].cpu_ns, strict=True)]
    logger, inline = (ratio(added(measured[name]), added(ours)) for name in ("usual logger", "inline OpenTelemetry"))
    return (
        f"- {case}: it adds {ratio(added(ours), measured['bare'].p50_ns):.2f} of the bare p50 (aim: 0.18) and "
        f"{ratio(added_cpu, measured['bare'].p50_ns):.2f} of it as CPU (0.45); p99.9 is "
        f"{ratio(ours.p999_ns, measured['bare'].p999_ns):.1f} of bare's (1); the logger adds {logger:.0f} times as "
        f"much to p50 (20), inline OpenTelemetry {inline:.0f} times (50)."
    )


def footprint(imported: Import, held: Memory | None) -> list[str]:
    """Returns sentences on the time and memory that the installed package takes."""
    lines = [
        f"Importing it takes {imported.ms:.0f} ms and {imported.mb:.1f} MB more than numpy and OpenTelemetry's SDK "
        "(traces, metrics and logs; medians of eleven processes).",
    ]
    if held is not None:
        lines += [
            "",
            f"Over {held.calls:,} calls ({held.dropped:,} of them dropped and counted) the process held "
            f"{held.held_mb[0]:.0f} MB after the first tenth and {held.held_mb[-1]:.0f} MB at the end.",
        ]
    return lines


def page(rows: list[str], methods: list[str], aims: list[str], having: list[str], rounds: int, calls: int) -> str:
    """Returns the text of benchmarks/README.md."""
    assert __doc__ is not None
    method = __doc__.partition("Method: ")[2].strip()
    return "\n".join(
        [
            "# What it costs",
            "",
            "Microseconds a call, written by `make bench`. Trust the ratios within the table, not the digits.",
            "",
            "| model | variant | p50 | added p50 | p99.9 | CPU | added CPU |",
            "|---|---|--:|--:|--:|--:|--:|",
            *rows,
            "",
            "Each method that runs a model, 10→16→4, batch 1, with warm caches and with cold ones, which is what a "
            "service has between two requests:",
            "",
            *HEADER,
            *methods,
            "",
            "Against what is aimed at, medians of the ratios of each round:",
            "",
            *aims,
            "",
            WHY,
            *having,
            "",
            f"**Method.** {method[0].upper()}{method[1:]}",
            "",
            "What is found and what alarms for nothing: [drift/README.md](drift/README.md), and the acceptance tables "
            "as they were run, [drift/acceptance.md](drift/acceptance.md).",
            "",
            "`python -m benchmarks.gpu` compares every method on a machine with a CUDA device and onnxruntime-gpu, and "
            "checks what is reported there; it ends with 2 where there is no device.",
            "",
            f"{rounds} rounds of {calls} calls; Python {platform.python_version()}, "
            f"{os.cpu_count()} cores shared with others.",
            "",
        ]
    )


def main() -> int:
    """Runs every case and writes the table."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="What monitoring costs a call.")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--calls", type=int, default=10_000, help="calls in a block")
    parser.add_argument("--dry-run", action="store_true", help="print the table, write nothing")
    parser.add_argument("--memory", action="store_true", help="hold memory over ten million calls too: minutes")
    arguments = parser.parse_args()
    rows: list[str] = []
    aims: list[str] = []
    for case in CASES:
        print(f"{case.name} …", file=sys.stderr)
        measured = measure(case, rounds=arguments.rounds, calls=arguments.calls)
        rows += rows_of(case.name, measured)
        if case.name.startswith(AIMED_AT) and case.threads == 1:
            aims.append(aim(case.name, measured))
    print("Sentry …", file=sys.stderr)
    for place, of_place in measure_sentry(rounds=arguments.rounds, calls=arguments.calls).items():
        rows += rows_of(place, of_place)
    aims += ending_aims(transactions=max(20, arguments.calls // 10))
    print("methods …", file=sys.stderr)
    methods = method_rows(measure_run_methods(rounds=arguments.rounds))
    having = footprint(import_cost(), memory() if arguments.memory else None)
    text = page(rows, methods, aims, having, arguments.rounds, arguments.calls)
    print(text)
    if not arguments.dry_run:
        README.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
