from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon.processor.receive.data_point import ModelLoaded, ProviderFallback
from otel_mlmon.processor.state.sqlite import SqliteRepository
from otel_mlmon.processor.window.intake import CLOCK_SLACK_NS
from otel_mlmon.processor.window.providers import MAX_PROVIDERS, ExecutionProviderUse, ModelProviders
from otel_mlmon.processor.window.state import MAX_EMBEDDED_REFERENCES
from otel_mlmon.processor.window.window import WindowSettings
from otel_mlmon.types import ModelKey
from tests.support.observations import MODEL, SECOND, T0, Bench, label

REPORTS = st.lists(
    st.tuples(st.sampled_from(["", "CUDA", "TensorRT"]), st.sampled_from(["CPU", "CUDA"]), st.integers(0, 100)),
    max_size=20,
)


def collected(reports: list[tuple[str, str, int]]) -> ModelProviders:
    providers = ModelProviders(MODEL)
    for requested, provider, time_ns in reports:
        providers = providers.add(requested=requested, provider=provider, time_ns=time_ns)
    return providers


@given(REPORTS, st.randoms())
def test_reports_in_any_order_and_twice_are_the_same(reports: list[tuple[str, str, int]], random: object) -> None:
    shuffled = [*reports, *reports]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert collected(shuffled) == collected(reports)


def test_the_number_of_providers_is_bounded_and_the_oldest_gives_way() -> None:
    providers = collected([("", f"provider{number}", number) for number in range(MAX_PROVIDERS + 3)])
    assert [use.last_ns for use in providers.uses] == list(range(MAX_PROVIDERS + 2, 2, -1))


def fallback(time_ns: int, model: ModelKey = MODEL) -> ProviderFallback:
    return ProviderFallback(model=model, requested="CUDA", provider="CPU", time_ns=time_ns)


def test_a_fallback_is_in_the_summary_survives_a_restart_and_goes_with_its_model(tmp_path: Path) -> None:
    bench = Bench(windows=WindowSettings(lateness_s=0, retention_s=86_400))
    store = SqliteRepository(tmp_path, synchronous="OFF")
    bench.panes.add_provider(ModelLoaded(model=MODEL, reference="", provider="CPU", time_ns=T0))
    bench.panes.add_provider(ModelLoaded(model=MODEL, reference=""))
    bench.panes.add_provider(fallback(T0))
    bench.add(label(1, at_s=5))
    bench.flush()
    bench.panes.save(store)
    store.commit()
    bench.reload(store)
    assert bench.panes.summary(MODEL).providers == (
        ExecutionProviderUse("", "CPU", T0, T0),
        ExecutionProviderUse("CUDA", "CPU", T0, T0),
    )
    bench.panes.close_panes(bench.clock.now_ns + 90_000 * SECOND)
    bench.panes.save(store)
    store.commit()
    assert store.load("providers") == {}
    store.close()


def test_a_report_without_a_time_or_from_the_future_counts_as_of_now() -> None:
    bench = Bench()
    bench.add(label(1, at_s=5))
    now_ns = bench.clock.now_ns
    for time_ns in (0, now_ns + 10 * CLOCK_SLACK_NS):
        bench.panes.add_provider(fallback(time_ns))
    assert bench.panes.summary(MODEL).providers == (ExecutionProviderUse("CUDA", "CPU", now_ns, now_ns),)


def test_reports_about_models_without_points_are_bounded_and_expire() -> None:
    bench = Bench(windows=WindowSettings(retention_s=86_400))
    bench.add(label(1, at_s=5))
    models = [ModelKey("m", str(number)) for number in range(MAX_EMBEDDED_REFERENCES + 1)]
    for model in models:
        bench.panes.add_provider(fallback(T0, model))
    bench.panes.add_provider(fallback(T0))  # a model with points has room
    assert len(bench.panes.summary(MODEL).providers) == 1
    state = bench.panes._state
    assert len(state.providers) == MAX_EMBEDDED_REFERENCES + 1
    bench.panes.close_panes(T0 + 86_461 * SECOND)
    assert len(state.providers) <= 1
