"""What is generated from code is up to date."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from docs import generate
from otel_mlmon.cli import _build_argument_parser
from otel_mlmon.processor.alert.rules.rule import RULES
from otel_mlmon.processor.config.model import Config


@pytest.mark.parametrize("path", list(generate.PAGES), ids=lambda path: path.name)
def test_a_generated_page_is_what_the_code_generates(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == generate.PAGES[path](), "run `make docs`"


RUNBOOKS = Path(__file__).parent.parent / "docs" / "runbooks"
COMMAND = re.compile(r"^otel-mlmon .*$", re.MULTILINE)


@pytest.mark.parametrize("rule", RULES.list_names())
def test_every_rule_has_a_runbook_that_says_how_to_silence_it(rule: str) -> None:
    text = (RUNBOOKS / f"{rule}.md").read_text(encoding="utf-8")
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    assert heads[0] == f"Runbook: `{rule}`"
    assert {"What it means", "Where to look", "Likely causes, and what to do", "Silence it, or accept it"} <= set(heads)
    assert f"otel-mlmon alert silence fraud --rule {rule} --for 2h" in COMMAND.findall(text)
    assert f"[{rule}]({rule}.md)" in (RUNBOOKS / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_the_commands_of_a_runbook_parse_and_its_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    commands = [shlex.split(line)[1:] for line in COMMAND.findall(text)]
    for words in commands:
        assert _build_argument_parser(words).parse_args(words).command == words[0]
    assert [link for link in re.findall(r"\]\(([^)]*)\)", text) if not (RUNBOOKS / link).is_file()] == []


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_the_configuration_in_a_runbook_is_valid(path: Path) -> None:
    for text in re.findall(r"`(models: \{.*?\}+)`", path.read_text(encoding="utf-8")):
        assert list(Config.model_validate(yaml.safe_load(text)).models) == ["fraud"]
