"""What the page says of six seeded incidents and of a quiet fleet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from otel_mlmon.processor.serve.page import home_view
from otel_mlmon.testing.simulated_processor import START_NS
from tests.support.incidents import INCIDENTS, PANE_S, simulate, source_of


@pytest.mark.parametrize("name", INCIDENTS)
def test_an_incident_is_named_with_its_onset_and_what_to_do(name: str) -> None:
    incident = INCIDENTS[name]
    processor, trouble_ns = simulate(incident, start_ns=START_NS)
    with processor:
        home = home_view.build_home(source_of(processor), query="", page=1)
    first, *others = home["rows"]
    condition = first["condition"]
    assert (first["id"], first["document"]["version"]) == (incident.model, incident.trouble.version)
    assert condition.state == ("pending" if name == "deploy" else "firing")
    assert incident.headline in condition.headline
    assert abs(condition.since_ns - trouble_ns) <= 3 * PANE_S * 10**9
    assert any(incident.action in action.striptags() for action in condition.actions)
    assert home["troubled"] == (name != "deploy")
    assert {row["condition"].state for row in others} <= {"ok", "weak"}


@pytest.fixture(scope="module")
def quiet() -> Iterator[dict[str, object]]:
    processor, _ = simulate(None, start_ns=START_NS)
    with processor:
        yield home_view.build_home(source_of(processor), query="", page=1)


def test_a_quiet_fleet_has_no_trouble(quiet: dict[str, object]) -> None:
    assert (quiet["troubled"], quiet["total"], quiet["counts"]) == (0, 3, {"weak": 3})
    for row in quiet["rows"]:  # type: ignore[attr-defined]
        assert (row["condition"].facts, row["condition"].actions, row["condition"].since_ns) == ((), (), 0)
