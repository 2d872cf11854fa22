"""Prometheus reads the processor's `/metrics`.

The page must be what the Prometheus client's own parser takes, whatever names models, versions, labels and features
have: quotes, line breaks and backslashes are legal in them. Totals must be counters, so that `rate()` and dashboards
treat them as such: a name that ends in `_total` has the type counter, as have the processor's own totals. No series
may be there twice.
"""

import time

from tests.cases import support

NAMES = ["shop", 'quote" and \\ backslash', "line\nbreak", "<b>bold</b>", "umlaut ä", "a/b c"]
CONFIGURATION = {"windows": {"pane": "1s", "lateness": "1s", "rolling": "1m"}}


def feed(processor: support.Processor) -> None:
    for _ in range(6):
        end_ns = time.time_ns()
        start_ns = end_ns - support.SECOND_NS
        request = support.MetricsRequest()
        for name in NAMES:
            request.predictions(name, 50, start_ns, end_ns, model=name, version=name)
            request.durations(3, 500, start_ns, end_ns, model=name, version=name)
            request.feature(name, [50, 60], start_ns, end_ns, model=name, version=name)
        status, _ = processor.post(request)
        if status != 200:
            raise RuntimeError(f"answer {status}")
        time.sleep(1)
    time.sleep(3)


def main() -> None:
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError:
        support.skip("prometheus_client is not installed")
    checks = support.Checks()
    with support.Processor(CONFIGURATION) as processor:
        feed(processor)
        status, body = processor.get("/metrics")
    page = body.decode()
    families = list(text_string_to_metric_families(page))
    checks.that(
        "the page is there and parses", status == 200 and len(families) > 5, f"{status}, {len(families)} families"
    )
    types = {line.split()[2]: line.split()[3] for line in page.splitlines() if line.startswith("# TYPE ")}
    samples = [sample for family in families for sample in family.samples]
    series = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in samples]
    twice = len(series) - len(set(series))
    checks.that("no series twice", not twice, f"{twice} twice")
    untyped = sorted({family.name for family in families if family.type in ("untyped", "unknown")})
    checks.that("every family has a type", not untyped, untyped or "all have")
    wrong = sorted(name for name, kind in types.items() if name.endswith("_total") and kind != "counter")
    checks.that("what ends in _total is a counter", not wrong, wrong or "so it is")
    received = [
        (name, kind)
        for name, kind in types.items()
        if "otel_mlmon_processor" in name and ("points" in name or "requests" in name)
    ]
    rising = {name: kind for name, kind in received if "pending" not in name}
    checks.that(
        "the processor's totals of points and requests are counters",
        rising and set(rising.values()) == {"counter"},
        rising,
    )
    models = {sample.labels[key] for sample in samples for key in sample.labels if key.endswith("model_name")}
    checks.that("every model's name as it was sent", set(NAMES) <= models, sorted(set(NAMES) - models) or "all")
    checks.finish()


if __name__ == "__main__":
    main()
