"""What the demo shows is what the documents say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from otel_mlmon.demo import view
from otel_mlmon.demo.story import ApiSnapshot, DemoAct, DemoOutcome, ExpectedAlert, plan_acts
from tests.support.api_documents import START_NS, alert_document, model_document, stream_document

LEARNING, CALM, SHIFT, RECOVERY = plan_acts(8.0)
FINDING = ExpectedAlert(
    rule="data_drift",
    stream="input.image.brightness",
    before="mean 0.31",
    now="mean 0.17",
    value=0.93,
    bound=0.05,
    fired_after_s=1.5,
    onset_after_s=0.25,
    resolved_after_s=11.0,
)


def moment(act: str, model: dict[str, object] | None, *alerts: dict[str, object]) -> ApiSnapshot:
    return ApiSnapshot(at_ns=START_NS, act=act, model=model, alerts=alerts)


def screen(shown: ApiSnapshot, act: DemoAct) -> str:
    console = Console(width=100, record=True, quiet=True, color_system=None)
    with console.capture() as capture:
        console.quiet = False
        console.print(view.render_screen(shown, act, 12.3))
    return capture.get()


@given(ratio=st.floats(-2, 2), cells=st.integers(1, 40))
def test_a_bar_has_its_width_and_grows_with_its_ratio(ratio: float, cells: int) -> None:
    drawn = view.draw_text_bar(ratio, cells)
    assert cell_len(drawn) == cells
    assert drawn.count("█") <= max(0.0, min(1.0, ratio)) * cells + 0.1
    assert len(view.draw_text_bar(ratio, cells).rstrip()) <= len(view.draw_text_bar(ratio + 0.5, cells).rstrip())


@pytest.mark.parametrize(
    ("ratio", "drawn"),
    [(0.0, "    "), (0.25, "█   "), (0.5, "██  "), (0.625, "██▌ "), (1.0, "████"), (9.0, "████")],
)
def test_bars(ratio: float, drawn: str) -> None:
    assert view.draw_text_bar(ratio, 4) == drawn


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 µs"),
        (21.4e-6, "21.4 µs"),
        (0.0009999, "1 ms"),
        (0.0123, "12.3 ms"),
        (0.9996, "1 s"),
        (3.0, "3 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert view.format_duration(seconds) == text


def test_what_is_not_known_yet_is_said_so() -> None:
    model = model_document(state="learning")
    model["latency"] |= {"p50_s": None, "p95_s": None, "p99_s": None, "over_ratio": None}
    model["error_ratio"] = None
    unknown = "p50 ?  p95 ?  p99 ?  400/s  errors ?"
    assert unknown in view.format_status_line(moment("learning", model), LEARNING, 1.0)
    assert unknown in screen(moment("learning", model), LEARNING)


def test_lines() -> None:
    performance = "p50 21 µs  p95 43 µs  p99 1.2 ms  400/s  errors 0.0 %"
    mixed = [stream_document("a"), stream_document("b", state="learning")]
    assert [
        view.format_status_line(moment("learning", None), LEARNING, 0.5),
        view.format_status_line(moment("learning", model_document(state="learning")), LEARNING, 3.0),
        view.format_status_line(moment("shift", model_document(drifting=("prediction.label",))), SHIFT, 21.25),
        view.format_status_line(moment("calm", {**model_document(), "streams": []}), CALM, 9.0),
        view.format_status_line(moment("calm", {**model_document(), "streams": mixed}), CALM, 9.0),
    ] == [
        "  0.5 s  learning  waiting for the first telemetry",
        f"  3.0 s  learning  {performance}  reference 500 of 2000 values",
        f" 21.2 s  shift     {performance}  evidence 9.5 of 7.7 (prediction.label)",
        f"  9.0 s  calm      {performance}  no streams",
        f"  9.0 s  calm      {performance}  evidence 0.3 of 7.7 (a), 1 still learning",
    ]


def test_the_screen_before_the_first_telemetry() -> None:
    text = screen(moment("learning", None), LEARNING)
    assert LEARNING.headline in text
    assert "Waiting for the first telemetry" in text


def test_the_screen_while_the_camera_is_dim() -> None:
    model = model_document(drifting=("prediction.label", "input.image.brightness"))
    text = screen(moment("shift", model, alert_document("prediction_drift")), SHIFT)
    rows = [" ".join(row.strip("│ \n").split()) for row in text.splitlines()]
    assert f"{SHIFT.headline} 12 s 4321 predictions" in rows
    assert "digits 1 p50 21 µs p95 43 µs p99 1.2 ms 400/s errors 0.0 %" in rows
    assert "3 ██▍ 10.0 % █████████████▎ 55.0 %" in rows
    assert f"prediction.label {'█' * 12}▏ 9.5 of 7.7 drift" in rows
    assert f"input.image.brightness {'█' * 12}▏ 9.5 of 7.7 drift 0.31 → 0.17" in rows
    assert "prediction.confidence ▌ ▏ 0.3 of 7.7 ok 0.95 → 0.95" in rows
    assert "firing prediction_drift prediction.label: 3: 10 % → 3: 55 %" in rows


def test_the_screen_while_learning_shows_how_far() -> None:
    rows = screen(moment("learning", model_document(state="learning")), LEARNING)
    assert f"{'█' * 3}{' ' * 9}▏" in rows
    assert rows.count("500 of 2000 values") == 3


def test_means_have_units_and_noise_is_not_a_count() -> None:
    model = model_document()
    model["streams"] += [
        {**stream_document("latency"), "mean": {"reference": None, "current": 21e-6}},
        {**stream_document("input.a", state="learning"), "learned_count": 2288, "calibrating": True},
    ]
    rows = [" ".join(row.strip("│ \n").split()) for row in screen(moment("calm", model), CALM).splitlines()]
    assert any(row.startswith("latency ") and row.endswith("ok 21 µs") for row in rows)
    assert any(row.startswith("input.a ") and "noise measured learning" in row for row in rows)


def test_a_resolved_alert_is_called_so_and_the_last_of_a_rule_is_shown() -> None:
    fired, ended = (
        alert_document("data_drift", after_s=1),
        alert_document("data_drift", state="ok", after_s=5),
    )
    text = screen(moment("recovery", model_document(), ended, fired), RECOVERY)
    assert "resolved data_drift" in text
    assert "firing data_drift" not in text


def test_the_screen_fits_and_is_no_markup() -> None:
    model = model_document()
    model["streams"] += [stream_document(f"input.[red]{i}[/red]") for i in range(6)]
    text = screen(moment("calm", model), CALM)
    assert max(map(cell_len, text.splitlines())) == 80
    assert "input.[red]5[/red]" in text


def test_a_model_without_shares_yet_is_drawn() -> None:
    model = model_document(state="learning")
    model["streams"][0] |= {"bins": [], "reference_shares": [], "current_shares": []}
    assert "Predicted classes" in screen(moment("learning", model), LEARNING)


def test_the_verdict_in_words() -> None:
    texts = (
        "  + data_drift (input.image.brightness): mean 0.31 → mean 0.17, 0.93 where 0.05 is tolerated; "
        "fired 1.5 s after the shift began, "
    )
    assert view.format_demo_outcome(DemoOutcome(problems=(), alerts=(FINDING,))) == (
        f"As expected; no alert before the shift, and all are resolved:\n{texts}resolved at 11.0 s."
    )
    open_end = ExpectedAlert(**{**{f: getattr(FINDING, f) for f in FINDING.__slots__}, "resolved_after_s": None})
    assert view.format_demo_outcome(DemoOutcome(problems=("No x.", "No y."), alerts=(open_end,))) == (
        f"{texts}not resolved.\nNot as expected:\n  - No x.\n  - No y."
    )
