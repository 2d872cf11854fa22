"""Builds the content of the first web page: one card a model and version, trouble first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from otel_mlmon.processor.serve.page.addresses import list_alert_commands
from otel_mlmon.processor.serve.page.alert_view import list_alert_links
from otel_mlmon.processor.serve.page.card import build_model_card
from otel_mlmon.processor.serve.page.condition import CALM, ORDER, URGENT, ModelCondition, describe_condition
from otel_mlmon.processor.serve.page.deploy import name_compared_version
from otel_mlmon.processor.serve.page.paging import cut_table_page
from otel_mlmon.processor.serve.page.source import PageSource
from otel_mlmon.processor.serve.page.steps import find_next_step, list_monitoring_steps

Document = Mapping[str, Any]

MODELS_PER_PAGE: Final = 50


def build_home_view(source: PageSource, *, query: str, page: int) -> dict[str, Any]:
    """Builds the content of the first web page, `/`."""
    conditions = [
        (model_id, document, describe_condition(source, model_id, document))
        for model_id in source.overview.get("versions", {})
        for document in source.versions(model_id).values()
    ]
    wanted = [row for row in conditions if query.casefold() in f"{row[0]} {row[1]['version']}".casefold()]
    wanted.sort(key=_rank_card)
    paging = cut_table_page(wanted, page, MODELS_PER_PAGE)
    troubled = sorted((row for row in conditions if row[2].state in URGENT), key=_rank_card)
    return {
        "paging": paging,
        "query": query,
        "rows": [_build_card(source, *row) for row in paging.rows],
        "counts": {
            state: sum(row[2].state == state for row in conditions)
            for state in ORDER
            if any(row[2].state == state for row in conditions)
        },
        "troubled": [
            {"id": model_id, "version": document["version"], "condition": condition}
            for model_id, document, condition in troubled
        ],
        "is_critical": any(row[2].severity != "warning" for row in troubled),
        "calm": sum(row[2].state in CALM for row in conditions),
        "total": len(conditions),
    }


def _rank_card(row: tuple[str, Document, ModelCondition]) -> tuple[int, bool, str, int]:
    model_id, document, condition = row
    return ORDER.index(condition.state), condition.severity == "warning", model_id, -document["updated_ns"]


def _build_card(source: PageSource, model_id: str, document: Document, condition: ModelCondition) -> dict[str, Any]:
    steps = list_monitoring_steps(document, source.setup, compared_version=name_compared_version(condition.deploy))
    card = build_model_card(
        source,
        model_id,
        document,
        condition.alerts,
        since_ns=condition.since_ns,
        deploy=condition.deploy,
        replacement=condition.replacement,
    )
    return {
        **card,
        "condition": condition,
        "links": [link for alert in condition.alerts[:1] for link in list_alert_links(alert)],
        "commands": list_alert_commands(condition.alerts),
        "steps": steps if condition.replacement is None else (),
        "next": find_next_step(steps) if condition.state not in URGENT else None,
    }
