"""`otel-mlmon settings`: shows the value of each option of `instrument()` in this environment, and its source."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any, Final, cast

from otel_mlmon.instrumentation.decode.model_identity import identify_model, read_class_names
from otel_mlmon.instrumentation.decode.output_reports import report_expected_outputs
from otel_mlmon.instrumentation.runtime.model_graph import GraphState
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.read import describe_model_file
from otel_mlmon.instrumentation.settings import InstrumentationSettings, resolve_settings
from otel_mlmon.options import list_options

HELP = "show every option of instrument(), its value in this environment, and the source of the value"
HIDDEN: Final = "(set, not shown)"
EXIT_CODES = "Exit codes: 0 success; 2 a value in the environment cannot be used, or a model's file not be opened."

MAX_SHOWN_CLASSES: Final = 20
_GRAPH_REMARKS: Final[dict[GraphState, str]] = {
    "ort_format": "ORT format has no nodes; what an output is shows in its name and in the values of the first calls",
    "unreadable": "no ONNX model, or an encrypted or damaged one; if a runtime loads it all the same, what an output "
    "is shows in its name and in the values of the first calls",
    "too_large": "reading its graph takes longer than is allowed; what an output is shows in its name and values",
}
"""The reason, by state of a graph, why less than usual is reported of the model's outputs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `otel-mlmon settings`."""
    parser.add_argument(
        "--model", metavar="FILE", help="show instead what would be read of an ONNX model, without running it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, by the name of the option")


def run_command(arguments: argparse.Namespace, *, settings_type: type[Any] = InstrumentationSettings) -> int:
    """Runs `otel-mlmon settings`: prints all options, or what a model's file tells; returns the exit code."""
    if arguments.model is not None:
        return _print_model_file(arguments.model, is_json=arguments.json)
    settings, origins = resolve_settings(settings_type, {}, environ=os.environ)
    rows: dict[str, dict[str, object]] = {
        option.name: {
            "value": HIDDEN if option.is_secret and getattr(settings, option.name) else getattr(settings, option.name),
            "origin": origins[option.name],
            "variable": option.environment_variable,
        }
        for option in list_options(settings_type)
    }
    if arguments.json:
        # JSON has no infinity.
        print(
            json.dumps(
                {name: {**row, "value": _replace_infinity(row["value"])} for name, row in rows.items()}, indent=2
            )
        )
        return 0
    widths = [
        max(len(str(cell)) for cell in column)
        for column in zip(*map(_format_option_row, rows, rows.values()), strict=True)
    ]
    for name, row in rows.items():
        print(
            "  ".join(
                cell.ljust(width) for cell, width in zip(_format_option_row(name, row), widths, strict=True)
            ).rstrip()
        )
    return 0


def _print_model_file(path: str, *, is_json: bool) -> int:
    try:
        session = describe_model_file(path)
    except OSError as error:
        print(f"{path} cannot be opened: {error.strerror}.", file=sys.stderr)
        return 2
    model, graph = identify_model(session), session.graph()
    names = read_class_names(session.metadata)
    outputs: dict[str, dict[str, object]] = {}
    for name, report in report_expected_outputs(session).items():
        labels = graph.outputs[name].labels or names
        outputs[name] = {
            "kind": report.kind,
            "reason": report.reason,
            "classes": list(labels[:MAX_SHOWN_CLASSES]),
        }
    if is_json:
        document = {"model": model.name, "version": model.version, "graph": graph.state, "outputs": outputs}
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return 0
    remark = f" ({_GRAPH_REMARKS[graph.state]})" if graph.state in _GRAPH_REMARKS else ""
    print(f"model    {model.name}\nversion  {model.version}\ngraph    {graph.state}{remark}")
    for name, row in outputs.items():
        print(f"output   {name}: {row['kind']} ({row['reason']})")
        if row["classes"]:
            print(f"         classes {', '.join(map(str, cast('list[str]', row['classes'])))}")
    return 0


def _format_option_row(name: str, row: dict[str, object]) -> tuple[str, str, str, str]:
    return name, repr(row["value"]), str(row["origin"]), str(row["variable"])


def _replace_infinity(value: object) -> object:
    return None if value == float("inf") else value
