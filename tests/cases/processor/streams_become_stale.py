"""A model is deployed again and again; each version has streams of its own, and the number of streams is limited.

`stale_after` says that a stream without data for so long is forgotten. Nine versions are silent for ten times that
while the tenth goes on: their streams must be forgotten, so that a new version finds room and is watched. Otherwise
some weeks of deploys fill the limit, and the newest version, the one that matters, is the one that is dropped.

Limit of 30 streams, three a version, stale after a minute, on a simulated clock.
"""

from otel_mlmon.testing import SimulatedProcessor
from tests.cases import support

CONFIGURATION = {
    "windows": {"pane": "1s", "lateness": "1s", "rolling": "10s"},
    "limits": {"max_streams": 30, "stale_after": "1m"},
}


def send(processor: SimulatedProcessor, version: str) -> None:
    end_ns = processor.now_ns
    start_ns = end_ns - support.SECOND_NS
    request = support.MetricsRequest(f"worker-{version}")
    request.predictions("a", 5, start_ns, end_ns, model="shop", version=version)
    request.durations(0.001, 5, start_ns, end_ns, model="shop", version=version)
    processor.receive(request.message)
    processor.now_ns += support.SECOND_NS
    processor.advance()


def names_of(processor: SimulatedProcessor) -> list[str]:
    """The versions known."""
    return [str(each["version"]) for each in processor.document()["models"]["shop"]["versions"]]


def main() -> None:
    checks = support.Checks()
    with SimulatedProcessor(CONFIGURATION) as processor:
        for version in range(10):
            send(processor, f"v{version}")
        before = names_of(processor)
        checks.that("ten versions fit", len(before) == 10, before)
        for _ in range(600):
            send(processor, "v9")
        for _ in range(5):
            send(processor, "new")
        names = names_of(processor)
    gone = [f"v{version}" for version in range(9)]
    checks.that("nine silent versions forgotten", not set(gone) & set(names), names)
    checks.that("the new version is watched", "new" in names, names)
    checks.finish()


if __name__ == "__main__":
    main()
