"""The repository is laid out as CONTRIBUTING says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

TOP_LEVEL = {
    ".changelog", ".ci", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE",
        "SECURITY.md", "Makefile", "README.md",
    "benchmarks", "collector-config", "docs", "examples", "otel_mlmon", "pyproject.toml", "tests",
}  # fmt: skip


def tracked() -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout: run the suite from a clone")
    return listing.stdout.split()


def test_nothing_else_stands_at_the_top() -> None:
    assert {name.split("/")[0] for name in tracked()} == TOP_LEVEL


def test_tests_mirror_the_package() -> None:
    own = {"conftest.py", "support", "contracts", "cases", "tools", "e2e"}
    for name in tracked():
        path = Path(name)
        if path.parts[0] != "tests" or path.parts[1] in own or len(path.parts) == 2:
            continue
        folder = ROOT / "otel_mlmon" / Path(*path.parts[1:-1])
        subject = path.stem.removeprefix("test_")
        modules = {module.stem for module in folder.glob("*.py")} | {child.name for child in folder.iterdir()}
        mirrored = any(subject == module or subject.startswith(f"{module}_") for module in {*modules, folder.name})
        assert mirrored, f"{name} mirrors no module"


def test_no_machine_path_and_no_registry_address_is_committed() -> None:
    forbidden = re.compile(r"(/(?:root|home|work)/[a-z]|extra-index-url|--index-url|pypi\.org/simple)")
    places = []
    for name in tracked():
        path = ROOT / name
        if (
            path.suffix in {".onnx", ".npz", ".png", ".sqlite3"}
            or name == "tests/test_repository.py"
            or not path.exists()
        ):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if forbidden.search(line):
                places.append(f"{name}:{number}")
    assert places == []


def test_every_change_fragment_has_a_kind_that_the_changelog_knows() -> None:
    for path in (ROOT / ".changelog").iterdir():
        if path.name != ".gitignore":
            assert re.fullmatch(r"\+?[a-z0-9-]+\.(added|changed|fixed|removed)\.md", path.name), path.name


COVERED_BY = {
    "__main__": "cli/test_cli.py",
    "backtest/describe": "backtest/test_api.py",
    "backtest/column_streams": "backtest/test_api.py",
    "backtest/judge": "backtest/test_api.py",
    "backtest/counts": "backtest/test_counting.py",
    "backtest/ordering": "backtest/test_times.py",
    "backtest/pictures": "backtest/test_page.py",
    "backtest/replay_table": "backtest/test_api.py",
    "backtest/report": "backtest/test_api.py",
    "backtest/summary": "backtest/test_columns.py",
    "processor/records": "processor/test_pipeline.py",
    "processor/serve/schema": "processor/serve/test_openapi.py",
    "processor/state/evidence_migration": "processor/state/test_migrations.py",
    "processor/state/instance": "processor/test_service.py",
    "processor/receive/accounts": "processor/receive/test_admission.py",
    "processor/receive/outcomes": "processor/receive/test_admission.py",
    "processor/alert/announcer": "processor/alert/test_lifecycle.py",
    "processor/alert/records": "processor/alert/test_lifecycle.py",
    "processor/alert/silence": "processor/alert/test_lifecycle.py",
    "processor/alert/version_change": "processor/test_pipeline_versions.py",
    "processor/alert/rules/version_drift": "processor/test_pipeline_versions.py",
    "processor/detect/cycle_statistics": "processor/detect/test_cycle.py",
    "processor/window/versions": "processor/test_pipeline_versions.py",
    "processor/window/embedded_reference": "processor/window/test_aggregator.py",
    "processor/notify/http": "processor/notify/test_webhook.py",
    "processor/notify/merge": "processor/notify/test_delivery.py",
    "errors": "cli/test_cli.py",
    "processor/window/state": "processor/window/test_records.py",
    "processor/window/pane_values": "processor/window/test_window_sums.py",
    "processor/window/pane_windows": "processor/test_pipeline_recorded.py",
    "processor/window/summary": "processor/serve/test_documents.py",
    "event_kinds": "test_semconv.py",
    "reference/relearn": "cli/test_reference_relearn.py",
    "reference/web_port": "reference/test_download.py",
    "instrumentation/export/error_tracker": "instrumentation/sentry/test_tracker.py",
    "instrumentation/export/process_metrics": "e2e/test_four_lines.py",
    "instrumentation/export/signal_writers": "instrumentation/test_pipeline.py",
    "instrumentation/sentry/client": "instrumentation/sentry/test_tracker.py",
    "instrumentation/sentry/events": "instrumentation/sentry/test_tracker.py",
    "options": "instrumentation/test_settings.py",
    "processor/alert/config": "processor/config/test_load.py",
    "processor/config/document": "processor/config/test_load.py",
    "processor/config/model": "processor/config/test_load.py",
    "processor/config/render": "processor/config/test_load.py",
    "processor/config/section": "processor/config/test_load.py",
    "processor/detect/state": "processor/detect/test_evaluator.py",
    "instrumentation/runtime/model_graph": "instrumentation/runtime/onnxruntime/graph/test_read.py",
    "instrumentation/runtime/onnxruntime/graph/model": "instrumentation/runtime/onnxruntime/graph/test_outputs.py",
    "instrumentation/runtime/onnxruntime/graph/ml_operators": "instrumentation/runtime/onnxruntime/graph/test_outputs.py",  # noqa: E501
    "instrumentation/runtime/onnxruntime/graph/node": "instrumentation/runtime/onnxruntime/graph/test_outputs.py",
    "instrumentation/runtime/onnxruntime/graph/operators": "instrumentation/runtime/onnxruntime/graph/test_outputs.py",
    "instrumentation/runtime/onnxruntime/graph/tensor_origin": "instrumentation/runtime/onnxruntime/graph/test_outputs.py",  # noqa: E501
    "instrumentation/runtime/onnxruntime/graph/trace": "instrumentation/runtime/onnxruntime/graph/test_outputs.py",
    "instrumentation/runtime/onnxruntime/graph/wire": "instrumentation/runtime/onnxruntime/graph/test_read.py",
    "instrumentation/runtime/onnxruntime/plans": "instrumentation/runtime/onnxruntime/test_copies.py",
    "processor/notify/notifier": "contracts/test_notifiers.py",
    "processor/receive/config": "processor/config/test_load.py",
    "processor/receive/data_point": "processor/receive/test_decode.py",
    "processor/receive/events": "processor/receive/test_admission.py",
    "processor/receive/responses": "processor/receive/test_http.py",
    "processor/receive/sketches": "processor/receive/test_decode.py",
    "processor/serve/config": "processor/config/test_load.py",
    "processor/serve/health": "processor/serve/test_api.py",
    "processor/serve/page/addresses": "processor/serve/page/test_routes.py",
    "processor/serve/page/advice": "processor/serve/page/test_condition.py",
    "processor/serve/page/alert_view": "processor/serve/page/test_routes.py",
    "processor/serve/page/card": "processor/serve/page/test_condition.py",
    "processor/serve/page/deploy": "processor/serve/page/test_condition.py",
    "processor/serve/page/facts": "processor/serve/page/test_condition.py",
    "processor/serve/page/findings": "processor/serve/page/test_routes.py",
    "processor/serve/page/home_view": "processor/serve/page/test_condition.py",
    "processor/serve/page/model_view": "processor/serve/page/test_routes.py",
    "processor/serve/page/paging": "processor/serve/page/test_routes.py",
    "processor/serve/page/replacement": "processor/serve/page/test_condition.py",
    "processor/serve/page/shares": "processor/serve/page/test_condition.py",
    "processor/serve/page/source": "processor/serve/page/test_routes.py",
    "processor/serve/page/stream_view": "processor/serve/page/test_routes.py",
    "processor/serve/server": "processor/serve/test_api.py",
    "processor/state/config": "processor/config/test_load.py",
    "processor/window/config": "processor/config/test_load.py",
    "processor/window/consumption": "processor/window/test_series.py",
    "processor/window/intake": "processor/window/test_series.py",
    "processor/window/model_windows": "processor/window/test_aggregator.py",
    "table/csv": "table/test_read.py",
    "testing/captured_signals": "instrumentation/test_pipeline.py",
    "testing/telemetry": "testing/test_simulated_processor.py",
    "types": "test_architecture.py",
    "version": "test_public_api.py",
}
"""A module without a test file of its own, and the one that covers it."""


def has_test_file(module: str) -> bool:
    folder, _, name = module.rpartition("/")
    tests = ROOT / "tests" / folder
    return (tests / f"test_{name}.py").exists() or bool(list(tests.glob(f"test_{name}_*.py")))


def test_every_module_has_a_test_file_or_a_named_cover() -> None:
    modules = [
        name.removeprefix("otel_mlmon/").removesuffix(".py")
        for name in tracked()
        if name.startswith("otel_mlmon/") and name.endswith(".py") and not name.endswith("/__init__.py")
    ]
    statistics = {"__init__", "registry"}
    uncovered = [
        module
        for module in modules
        if not has_test_file(module)
        and not (module.startswith("processor/detect/statistics/") and Path(module).name not in statistics)
    ]
    assert set(uncovered) == set(COVERED_BY)
    assert [cover for cover in COVERED_BY.values() if not (ROOT / "tests" / cover).exists()] == []
