"""Parts are found by name, whether they are ours or a package's; what cannot be had is said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.registry import PluginRegistry

ENTRY_POINTS = """[otel_mlmon.examples]
added = added_part:PART
psi = added_part:PART
broken = module_that_is_not_there:PART
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PluginRegistry[object]:
    """A registry beside a package that offers three parts."""
    folder = tmp_path / "added_part-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: added-part\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "added_part.py").write_text("PART = 'from outside'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "added_part", raising=False)
    return PluginRegistry("otel_mlmon.examples", {"psi": "math:pi", "e": "math:e"})


def test_the_names_are_ours_then_those_of_packages(registry: PluginRegistry[object]) -> None:
    assert registry.list_names() == ("psi", "e", "added", "broken")


def test_a_built_in_name_cannot_be_taken(registry: PluginRegistry[object]) -> None:
    assert (registry.load_plugin("psi"), registry.load_plugin("e")) == (3.141592653589793, 2.718281828459045)


def test_a_part_of_a_package_is_imported_when_it_is_asked_for(registry: PluginRegistry[object]) -> None:
    assert "added_part" not in sys.modules
    assert registry.load_plugin("added") == "from outside"
    assert registry.load_plugin("added") is registry.load_plugin("added")


def test_an_unknown_name_is_told_with_those_that_are_known(registry: PluginRegistry[object]) -> None:
    with pytest.raises(
        ConfigurationError, match=r"'pssi' is not one of psi, e, added, broken \(otel_mlmon\.examples\)"
    ):
        registry.load_plugin("pssi")


def test_a_part_that_cannot_be_imported_is_told(registry: PluginRegistry[object]) -> None:
    with pytest.raises(ConfigurationError, match=r"'broken' of module_that_is_not_there:PART .* cannot be imported"):
        registry.load_plugin("broken")
    with pytest.raises(ConfigurationError, match="'broken'"):
        registry.load_all_plugins()
