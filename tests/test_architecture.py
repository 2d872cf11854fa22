"""The house rule as two tables: who may import whom, and which third party is at home where.

A step imports the base and, for its OUT type, the step directly upstream; never downstream. What comes next is a
parameter; only the two `pipeline.py` join steps. A module without a row, an import outside its row, and a module over
400 lines all fail here.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "otel_mlmon"
MAX_LINES = 400

BASE = (
    "types",
    "semconv",
    "vocabulary",
    "streams",
    "errors",
    "options",
    "sketch",
    "internal_events",
    "guard",
    "registry",
    "version",
)

SECTION = ("processor.config.section", "processor.config.units")

PROFILE = ("reference.profile", "reference.embedding", "reference.calibration", "reference.design_effect")

# An entry and what of ours it may import besides itself. A module belongs to the longest entry that begins its name.
OURS: dict[str, tuple[str, ...]] = {
    "": ("instrumentation", "version", "errors"),
    "__main__": ("cli",),
    "version": (),
    "types": (),
    "semconv": (),
    "streams": ("semconv",),
    "event_kinds": ("semconv",),
    "errors": (),
    "vocabulary": ("semconv",),
    "options": ("errors",),
    "sketch": ("types", "errors", "semconv"),
    "internal_events": ("semconv",),
    "guard": ("internal_events",),
    "registry": ("errors",),
    "testing": (*BASE, "instrumentation", "processor"),
    "reference": BASE,
    # Offline, over a file: it profiles with the application half's own decoders, so that both count alike.
    "reference.build": (
        *BASE,
        "reference",
        "instrumentation.settings",
        "instrumentation.runtime",
        "instrumentation.decode",
    ),
    "reference.model_inputs": (*BASE, "reference", "table"),
    "table": ("types", "errors"),
    "demo": (*BASE, ""),
    "cli": (*BASE, "cli", "demo", "reference", "processor", "instrumentation", "backtest"),
    "backtest": (*BASE, *PROFILE, "processor", "table"),
    # in the application: capture, queue, decode, aggregate, export
    "instrumentation": (*BASE, "instrumentation.pipeline", "instrumentation.settings"),
    "instrumentation.settings": BASE,
    "instrumentation.lifecycle": (*BASE, "instrumentation"),
    "instrumentation.instrumentor": (*BASE, "instrumentation"),
    "instrumentation.pipeline": (*BASE, "instrumentation"),
    "instrumentation.runtime": BASE,
    "instrumentation.queue": BASE,
    "instrumentation.decode": (
        *BASE,
        *PROFILE,
        "instrumentation.runtime.call",
        "instrumentation.runtime.model_graph",
        "instrumentation.runtime.input_sample",
    ),
    "instrumentation.aggregate": (*BASE, "instrumentation.decode.predictions"),
    "instrumentation.export": (
        *BASE,
        "instrumentation.settings",
        "instrumentation.queue.call_queue",
        "instrumentation.decode.predictions",
        "instrumentation.decode.model_loading",
        "instrumentation.aggregate.aggregator",
    ),
    "instrumentation.sentry": (
        *BASE,
        "instrumentation.decode.predictions",
        "instrumentation.export.call_sampler",
        "instrumentation.export.error_tracker",
        "instrumentation.settings",
    ),
    # beside the Collector: receive, window, detect, alert, notify
    "processor": BASE,
    # Every step brings its sections of the configuration; `config` joins them, with those of all rules and notifiers.
    "processor.config": BASE,
    "processor.config.model": (
        *BASE,
        "processor.config",
        "processor.receive.config",
        "processor.window.config",
        "processor.state.config",
        "processor.serve.config",
        "processor.alert.config",
        "processor.alert.rules.rule",
        "processor.notify.notifier",
    ),
    "processor.receive.config": SECTION,
    "processor.window.config": SECTION,
    "processor.state.config": SECTION,
    "processor.serve.config": SECTION,
    "processor.alert.config": SECTION,
    "processor.self_telemetry": BASE,
    "processor.address": BASE,
    "processor.connections": BASE,
    "processor.settings": (*BASE, "processor", *PROFILE),
    "processor.pipeline": (*BASE, "processor"),
    "processor.evidence_log": (
        *BASE,
        "processor.detect",
        "processor.evidence_slices",
        "processor.state.repository",
        "processor.window",
    ),
    "processor.evidence_slices": (*BASE, "processor.detect", "processor.state.repository", "processor.window"),
    "processor.service": (*BASE, "processor"),
    "processor.notify_trial": (*BASE, "processor"),
    "processor.own_metrics": (
        *BASE,
        "processor.alert.alert",
        "processor.alert.rules.rule",
        "processor.notify.delivery",
        "processor.receive.admission",
        "processor.receive.outcomes",
        "processor.self_telemetry",
        "processor.window.outcome",
    ),
    "processor.receive": (*BASE, "processor.address", "processor.connections"),
    "processor.window": (
        *BASE,
        "processor.receive.data_point",
        "processor.state.repository",
        *PROFILE,
    ),
    "processor.detect": (*BASE, "processor.window.window"),
    "processor.detect.statistics": (*BASE, "processor.detect.counts"),
    "processor.alert": (
        *BASE,
        "processor.detect.score",
        "processor.config.units",
        "processor.window.providers",
        "processor.window.window",
    ),
    "processor.alert.records": (
        *BASE,
        "processor.alert",
        "processor.detect.score",
        "processor.state.repository",
        "processor.window.providers",
        "processor.window.window",
    ),
    "processor.alert.rules": (
        *BASE,
        *SECTION,
        "processor.alert.alert",
        "processor.alert.cause",
        "processor.detect.detectable",
        "processor.detect.accuracy",
        "processor.detect.policy",
        "processor.detect.score",
        "processor.detect.statistics.registry",
        "processor.window.progress",
        "processor.window.providers",
        "processor.window.window",
    ),
    "processor.notify": (
        *BASE,
        *SECTION,
        "processor.alert.alert",
        "processor.alert.message",
        "processor.alert.document",
        "processor.alert.markup",
    ),
    "processor.state": BASE,
    "processor.serve": (
        *BASE,
        "processor.address",
        "processor.connections",
        "processor.self_telemetry",
        "processor.alert.alert",
    ),
    "processor.serve.silences": (*BASE, "processor.alert.silence", "processor.serve"),
    "processor.serve.documents": (*BASE, "processor"),
    "processor.serve.page.history": (*BASE, "processor.state.repository"),
    "processor.serve.publication": (*BASE, "processor"),
    "processor.serve.schema": ("processor.alert.alert", "processor.alert.document"),
}

# A leaf, which is reached through its registry, and the entries that may import it by name all the same.
LEAVES: dict[str, tuple[str, ...]] = {
    "processor.state.sqlite": ("processor.state.sqlite", "processor.state.maintenance", "cli.state"),
    "instrumentation.runtime.onnxruntime": (
        "instrumentation.runtime.onnxruntime",
        "reference.build",
        "cli.settings",
    ),
    "instrumentation.runtime.manual": ("instrumentation.runtime.manual",),
    "instrumentation.sentry": ("instrumentation.sentry", "instrumentation.pipeline"),
}

# A third party and the entries it is at home in. What is not listed may be imported nowhere.
THEIRS: dict[str, tuple[str, ...]] = {
    "numpy": (
        "types", "testing", "backtest", "table", "sketch", "reference", "demo",
        "instrumentation.decode", "instrumentation.aggregate", "instrumentation.runtime", "instrumentation.export",
        "instrumentation.sentry", "instrumentation.pipeline",
        "processor.receive", "processor.window", "processor.detect", "processor.alert", "processor.pipeline",
        "processor.evidence_log",
        "processor.state.repository", "processor.state.maintenance", "processor.serve.documents",
        "processor.serve.page.history",
    ),
    "onnxruntime": ("instrumentation.runtime.onnxruntime", "demo.service"),
    "onnx": ("demo.train",),
    "sklearn": ("demo.train",),
    "opentelemetry": (
        "instrumentation", "instrumentation.pipeline", "instrumentation.export", "instrumentation.sentry",
        "processor.receive", "processor.serve.otlp", "testing",
    ),
    "sentry_sdk": ("instrumentation.sentry", "processor.notify.sentry"),
    "apprise": ("processor.notify.apprise",),
    "grpc": ("processor.receive",),
    "grpc_health": ("processor.receive",),
    "google": ("processor.receive",),
    "scipy": ("processor.detect", "reference"),
    "msgspec": (
        "processor.state.repository",
        "processor.state.maintenance",
        "processor.window.window",
        "processor.detect.score",
        "processor.alert.document",
        "processor.serve.openapi",
        "processor.serve.schema",
    ),
    "prometheus_client": ("processor.serve.prometheus",),
    "duckdb": ("table.read",),
    "fsspec": ("table.files",),
    "pyarrow": ("table", "backtest"),
    "pyspark": ("backtest.spark",),
    "py4j": ("backtest.spark",),
    "pydantic": (
        "processor.config", "processor.receive.config", "processor.window.config", "processor.state.config",
        "processor.serve.config", "processor.alert.config", "processor.alert.rules", "processor.notify",
    ),
    "pydantic_core": ("processor.config",),
    "yaml": ("processor.config",),
    "starlette": ("processor.receive.http", "processor.serve", "processor.connections"),
    "uvicorn": ("processor.connections",),
    "zstandard": ("processor.receive.inflate",),
    "httpx": (
        "processor.notify", "reference.web_port", "reference.download", "reference.relearn", "cli.doctor", "cli.demo",
    ),
    "jinja2": ("backtest.page", "processor.serve.page", "processor.alert.markup"),
    "markdown_it": ("processor.serve.page",),
    "markupsafe": ("processor.serve.page",),
    "rich": ("cli", "demo.view", "backtest.terminal", "backtest.result"),
}  # fmt: skip


def entry_of(module: str, table: dict[str, tuple[str, ...]]) -> str | None:
    """The longest entry of `table` that `module` (without the package's own name) belongs to."""
    parts = module.split(".") if module else []
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in table:
            return name
    return "" if not module and "" in table else None


def belongs(module: str, entry: str) -> bool:
    """Whether `module` is `entry` or inside it."""
    return module == entry or (entry != "" and module.startswith(entry + "."))


def imports_of(source: str) -> Iterator[tuple[int, str]]:
    """Line and full name of every import in `source`, function-local and type-only ones too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports are not used"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def ours_named(full: str, modules: frozenset[str]) -> str:
    """The module of ours that an import of `otel_mlmon.x.y.Name` reaches: the longest prefix that is a module."""
    parts = full.split(".")[1:]
    while parts and ".".join(parts) not in modules:
        parts.pop()
    return ".".join(parts)


def faults_in(module: str, source: str, modules: frozenset[str], stdlib: frozenset[str]) -> list[str]:
    """What `module` imports against the tables."""
    row = entry_of(module, OURS)
    if row is None:
        return [f"{module}: no row in OURS"]
    faults = []
    for line, full in imports_of(source):
        top = full.split(".")[0]
        if top == "otel_mlmon":
            target = ours_named(full, modules)
            if not belongs(target, row) and not any(belongs(target, allowed) for allowed in OURS[row]):
                faults.append(f"{module}:{line} imports otel_mlmon.{target}, which its row {row!r} does not allow")
        elif top not in stdlib and not any(belongs(module, home) for home in THEIRS.get(top, ())):
            faults.append(f"{module}:{line} imports {top}, which is not at home there")
    return faults


def all_modules() -> dict[str, Path]:
    """Name (without the package's own) and path of every module."""
    modules = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        modules[".".join(part for part in parts if part != "__init__")] = path
    return modules


MODULES = all_modules()


@functools.cache
def imports_in(module: str) -> tuple[tuple[int, str], ...]:
    """Line and full name of every import of a module."""
    return tuple(imports_of(MODULES[module].read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def stdlib() -> frozenset[str]:
    import sys

    return frozenset(sys.stdlib_module_names)


@pytest.mark.parametrize("module", MODULES)
def test_every_import_is_allowed_by_the_tables(module: str, stdlib: frozenset[str]) -> None:
    source = MODULES[module].read_text(encoding="utf-8")
    assert faults_in(module, source, frozenset(MODULES), stdlib) == []


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_leaf_is_reached_through_its_registry(leaf: str) -> None:
    importers = {
        module
        for module in MODULES
        for _, full in imports_in(module)
        if full.startswith(f"otel_mlmon.{leaf}.") and module  # the public API names everything
    }
    assert [name for name in sorted(importers) if not any(belongs(name, home) for home in LEAVES[leaf])] == []


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_too_long(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        (
            "processor.detect.statistics.psi",
            "from otel_mlmon.processor.alert.alert import Alert",
            "processor.detect.statistics.psi:1 imports otel_mlmon.processor.alert.alert, "
            "which its row 'processor.detect.statistics' does not allow",
        ),
        (
            "instrumentation.runtime.call",
            "import otel_mlmon.processor.config",
            "instrumentation.runtime.call:1 imports otel_mlmon.processor.config, "
            "which its row 'instrumentation.runtime' does not allow",
        ),
        (
            "instrumentation.decode.output_kind",
            "def late():\n    import scipy.stats",
            "instrumentation.decode.output_kind:2 imports scipy, which is not at home there",
        ),
        (
            "processor.alert.rules",
            "from onnxruntime import InferenceSession",
            "processor.alert.rules:1 imports onnxruntime, which is not at home there",
        ),
        (
            "semconv",
            "from otel_mlmon.guard import guard",
            "semconv:1 imports otel_mlmon.guard, which its row 'semconv' does not allow",
        ),
        ("utilities", "x = 1", "utilities: no row in OURS"),
    ],
)  # fmt: skip
def test_a_broken_import_is_found(module: str, source: str, fault: str, stdlib: frozenset[str]) -> None:
    assert faults_in(module, source, frozenset(MODULES), stdlib) == [fault]


def test_an_allowed_import_is_not_a_fault(stdlib: frozenset[str]) -> None:
    source = "import json\nimport numpy as np\nfrom otel_mlmon.processor.window.window import StreamWindow\n"
    assert faults_in("processor.detect.evaluator", source, frozenset(MODULES), stdlib) == []


def test_the_two_halves_never_meet() -> None:
    for module in MODULES:
        half = module.split(".")[0]
        other = {"instrumentation": "processor", "processor": "instrumentation"}.get(half)
        if other:
            names = [full for _, full in imports_in(module)]
            assert not [name for name in names if name.startswith(f"otel_mlmon.{other}")], module


def test_rules_and_notifiers_are_reached_through_their_registry_alone() -> None:
    from otel_mlmon.processor.alert.rules.rule import RULES
    from otel_mlmon.processor.notify.notifier import NOTIFIERS

    parts = {part.__module__ for part in (*RULES.load_all_plugins().values(), *NOTIFIERS.load_all_plugins().values())}
    for module in MODULES:
        imports = {full.rpartition(".")[0] for _, full in imports_in(module)}
        assert not imports & parts, module


def cycles(imports: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import each other, by Tarjan's algorithm for strongly connected components."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in imports.get(module, ()):
            if target not in index:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], index[target])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for module in imports:
        if module not in index:
            visit(module)
    return groups


def test_no_modules_import_each_other() -> None:
    names = frozenset(MODULES)
    imports = {
        module: {
            target
            for _, full in imports_in(module)
            if full.startswith("otel_mlmon.") and (target := ours_named(full, names)) != module
        }
        for module in MODULES
    }
    assert cycles(imports) == []
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_no_class_name_is_defined_twice() -> None:
    places: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(module)
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}
