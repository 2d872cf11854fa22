"""A package that is no part of ours adds one part of each kind, as a stranger would; docs/extending.md shows it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import run_python

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
EXTENSION = ROOT / "examples" / "extension"
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")

PROCESSOR = """
import json
from pathlib import Path
from otel_mlmon.processor.notify.notifier import NOTIFIERS
from otel_mlmon.testing import SimulatedProcessor

path = Path("alerts.txt")
configuration = {
    "storage": {"engine": "memory"},
    "alerts": {"notify": [{"file": {"path": str(path)}}]},
    "models": {
        "*": {
            "reference": {"learn": 100},
            "prediction_drift": {"enabled": False},
            "dominance": {"max_share": "80%"},
            "statistic": {"thresholds": [{"statistic": "bhattacharyya", "above": 0.05}]},
        }
    },
}
with SimulatedProcessor(configuration) as processor:
    for pane in range(500):
        processor.send_counts("fraud", labels={"ham": 50, "spam": 50} if pane < 100 else {"ham": 100})
        processor.advance(10)
    processor.restart()  # the state is in the repository
    stream = processor.stream("fraud", "prediction.label")
    notifier = NOTIFIERS.load_plugin("file").create(NOTIFIERS.load_plugin("file").section_type(path=path), None)
    for alert in processor.alerts:
        notifier.notify(alert)
print(json.dumps({"lines": sorted(path.read_text().splitlines()), "statistics": sorted(stream["statistics"])}))
"""

APPLICATION = """
import json
import numpy as np
from mlmon_extension.toy import Model
from otel_mlmon.testing import capture

original = Model.predict
with capture() as captured:
    Model().predict(np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])))
    captured.flush()
    (span,) = captured.spans
    labels = {point.attributes["ml.prediction.label"]: point.value
              for point in captured.metrics()["ml.predictions"].data.data_points}
assert Model.predict is original
print(json.dumps({"name": span.name, "runtime": span.attributes["ml.runtime.name"], "labels": labels}))
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the package in it, as an installation would leave it."""
    project = tomllib.loads((EXTENSION / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shutil.copytree(EXTENSION / "mlmon_extension", tmp_path / "mlmon_extension")
    metadata = tmp_path / "mlmon_extension-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, parts in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {place}" for name, place in parts.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def run(folder: Path, script: str) -> Any:
    finished = run_python(["-c", script], cwd=folder)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def test_a_rule_a_statistic_a_notifier_and_a_repository(installed: Path) -> None:
    result = run(installed, PROCESSOR)
    assert result["lines"] == ["fraud dominance firing", "fraud statistic firing"]
    assert "bhattacharyya" in result["statistics"]


def test_a_runtime(installed: Path) -> None:
    expected = {"name": "predict toy-model", "runtime": "toy", "labels": {"0": 1, "2": 1}}
    assert run(installed, APPLICATION) == expected


def test_the_page_shows_the_code_that_is_tested() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in sorted((EXTENSION / "mlmon_extension").glob("*.py")))
    blocks = re.findall(r"^( *)```(python|toml)\n(.*?)^ *```", PAGE, re.MULTILINE | re.DOTALL)
    assert [language for _, language, _ in blocks].count("python") >= 5
    for indentation, language, block in blocks:
        lines = [line.removeprefix(indentation) for line in block.splitlines(keepends=True)]
        source = code if language == "python" else (EXTENSION / "pyproject.toml").read_text(encoding="utf-8")
        assert "".join(lines) in source
