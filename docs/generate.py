"""Writes the pages of documentation, the settings and the dashboards that are generated from code.

`python -m docs.generate` writes them; `tests/test_docs.py` fails where one of them is stale.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from docs import dashboards
from otel_mlmon import semconv, streams
from otel_mlmon.event_kinds import EVENTS
from otel_mlmon.instrumentation.settings import OPTIONS
from otel_mlmon.options import Option
from otel_mlmon.processor.alert import alert as alerts
from otel_mlmon.processor.alert import document
from otel_mlmon.processor.config.render import render_default_yaml

ROOT = Path(__file__).parent.parent


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def bounds_of(metric: semconv.Metric) -> str:
    """Bucket bounds as text."""
    return "" if metric.bounds is None else " ".join(f"{bound:g}" for bound in metric.bounds)


def names(of: Iterable[str]) -> str:
    """Names as code."""
    return " ".join(f"`{name}`" for name in of)


def attributes(of: Iterable[semconv.Attribute]) -> str:
    """A table of attributes."""
    return table(
        ("attribute", "type", "when"),
        ((f"`{attribute.name}`", attribute.type, attribute.when) for attribute in of),
    )


def metrics(of: Sequence[semconv.Metric]) -> str:
    """A table of metrics."""
    return table(
        ("name", "instrument", "unit", "attributes", "what", "bounds"),
        (
            (
                f"`{metric.name}`",
                metric.instrument.replace("_", " "),
                f"`{metric.unit}`",
                names(metric.attributes),
                metric.description,
                bounds_of(metric),
            )
            for metric in of
        ),
    )


def semconv_page() -> str:
    """docs/semconv.md."""
    return f"""# What crosses the wire

Generated from `otel_mlmon/semconv.py`; `make docs` writes it. All names are of stability *development*.
Scope of the application half: `{semconv.SCOPE}`; of the processor: `{semconv.PROCESSOR_SCOPE}`.

## Spans

One for an inference call, named `predict {{{semconv.MODEL_NAME}}}`, of kind INTERNAL.

{attributes(semconv.SPAN_ATTRIBUTES)}

## Resource

{attributes(semconv.RESOURCE_ATTRIBUTES)}

## Metrics of the application

Every one of a model carries `{semconv.MODEL_NAME}` and, where known, `{
        semconv.MODEL_VERSION
    }`. With a meter provider of
our own, OpenTelemetry's system-metrics instrumentation adds `process.cpu.*` and `process.memory.*`, if installed.

{metrics(semconv.APPLICATION_METRICS)}

## Metrics of the processor

{metrics(semconv.PROCESSOR_METRICS)}

## The processor's metrics of itself

At `/metrics` only.

{metrics(semconv.PROCESSOR_SELF_METRICS)}

## Events

Log records with an event name. An attribute whose value is unknown is left out.

{
        table(
            ("event", "severity", "when", "attributes"),
            ((f"`{event.name}`", event.severity, event.when, names(event.attributes)) for event in EVENTS),
        )
    }

## Streams

{
        table(
            ("stream", "metrics"),
            ((f"`{stream}`", names(metrics.split(", "))) for stream, metrics in streams.STREAMS.items()),
        )
    }

## Image features

{names(semconv.IMAGE_FEATURES)}; of three channels the mean of each: {names(semconv.COLOUR_FEATURES)} where the model's
metadata or the input's name says their order (`rgb` or `bgr`), else {names(semconv.CHANNEL_FEATURES)}. With several
image inputs each name begins with that of its input, as in `left.image.brightness`.

## Features of wide inputs

Inputs of one kind of value that are too wide for a feature a column (sound, raw bytes, tokens, a spectrogram, a vector
of more than 256 columns without names) have two: `<input>.mean` and `<input>.spread`, mean and standard deviation of a
sample's values, of at most some 1,000 of them.
"""


def settings_page(options: Sequence[Option[Any]] = OPTIONS) -> str:
    """docs/settings.md."""
    rows = (
        (f"`{option.name}`", f"`{option.environment_variable}`", f"`{option.default!r}`", option.doc)
        for option in options
    )
    return f"""# Settings of the application half

Generated from `otel_mlmon/instrumentation/settings.py`; `make docs` writes it.
An argument of `instrument()` wins over the environment, the environment over the default.
The processor's settings are `collector-config/mlmon.yaml`, every key at its default.

{table(("argument", "environment", "default", "what"), rows)}
"""


def alert_schema() -> str:
    """docs/alert.schema.json: the types of the machine form, with what their fields are documented to be."""
    schema = document.build_alert_schema()
    for name, definition in schema["$defs"].items():
        documented = getattr(document, name, None) or getattr(alerts, name)
        texts = field_docs(documented)
        for field, entry in definition.get("properties", {}).items():
            if field in texts:
                definition["properties"][field] = {"description": texts[field], **entry}
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"otel_mlmon alert, version {document.SCHEMA_VERSION}",
    }
    return json.dumps({**head, **schema}, indent=2, ensure_ascii=False) + "\n"


def field_docs(documented: type) -> dict[str, str]:
    """The texts below the fields of a class, by field."""
    (body,) = (part for part in ast.parse(inspect.getsource(documented)).body if isinstance(part, ast.ClassDef))
    return {
        field.target.id: " ".join(str(text.value.value).split())
        for field, text in zip(body.body, body.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


PAGES = {
    ROOT / "docs" / "alert.schema.json": alert_schema,
    ROOT / "docs" / "semconv.md": semconv_page,
    ROOT / "docs" / "settings.md": settings_page,
    ROOT / "collector-config" / "mlmon.yaml": render_default_yaml,
    ROOT / "collector-config" / "grafana" / "fleet.json": dashboards.build_fleet,
    ROOT / "collector-config" / "grafana" / "model.json": dashboards.build_model,
}


def main() -> None:
    """Write every page."""
    for path, page in PAGES.items():
        path.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
