from __future__ import annotations

import json
from pathlib import Path

import pytest

from otel_mlmon import cli
from otel_mlmon.instrumentation.settings import OPTIONS
from tests.support import models


def test_every_setting_with_its_value_and_origin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_MLMON_SPAN_RATIO", "0.25")
    monkeypatch.setenv("OTEL_MLMON_ONNXRUNTIME_TELEMETRY", "off")
    assert cli.main(["settings", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == [option.name for option in OPTIONS]
    assert document["span_ratio"] == {"value": 0.25, "origin": "environment", "variable": "OTEL_MLMON_SPAN_RATIO"}
    assert document["onnxruntime_telemetry"]["value"] is False
    assert document["latency_threshold_s"] == {
        "value": None,
        "origin": "default",
        "variable": "OTEL_MLMON_LATENCY_THRESHOLD_S",
    }


def test_the_value_of_a_secret_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_MLMON_TEXT_KEY", "s3cret")
    for arguments in (["settings"], ["settings", "--json"]):
        assert cli.main(arguments) == 0
        text = capsys.readouterr().out
        assert ("s3cret" in text, "(set, not shown)" in text) == (False, True)


def test_a_line_a_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [option.name for option in OPTIONS]
    assert "max_labels" in lines[8]
    assert lines[8].split()[1:] == ["50", "default", "OTEL_MLMON_MAX_LABELS"]


def test_what_would_be_read_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "insects"
    folder.mkdir()
    path, content = folder / "model.onnx", models.text_labels(name="main_graph")
    path.write_bytes(content)
    assert cli.main(["settings", "--model", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "model    insects-model",
        f"version  {models.digest_version(content)}",
        "graph    read",
        "output   label: labels (the class of the greatest score, by its operator ArgMax)",
        "         classes ant, bee, cow",
        "output   probabilities: probabilities (normalised along its classes, by its operator Softmax)",
        "         classes ant, bee, cow",
    ]
    path.write_bytes(models.classifier())
    assert cli.main(["settings", "--model", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"] == {
        "logits": {"kind": "decided by the first rows", "reason": "no row shows its kind yet", "classes": []}
    }


def test_a_model_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["settings", "--model", str(tmp_path / "none.onnx")]) == 2
    assert "none.onnx cannot be opened: No such file or directory." in capsys.readouterr().err
    path = tmp_path / "churn.onnx"
    path.write_bytes(b"encrypted" * 100)
    assert cli.main(["settings", "--model", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[::2] == [
        "model    churn",
        "graph    unreadable (no ONNX model, or an encrypted or damaged one; if a runtime loads it all the same, what "
        "an output is shows in its name and in the values of the first calls)",
    ]
