"""Ten models of 96 features are deployed twelve times in a day, ten replicas each: each deploy brings new processes.

A process begins its running totals anew, so each deploy brings some 9,700 new series for the same 1,000 streams; the
old ones are silent for good. No point of the running deploy may be dropped because of the dead ones: the limit on
streams is far away, and nothing in the configuration speaks of series. A deploy after which nothing is counted is a
deploy that nobody watches. All predictions of every deploy must be counted.

Half an hour between deploys, on a simulated clock.
"""

from otel_mlmon.testing import SimulatedProcessor
from tests.cases import support

MODELS, FEATURES, REPLICAS, DEPLOYS = 10, 96, 10, 12
PANES = 2
PANE_NS = 10 * support.SECOND_NS


def deploy(processor: SimulatedProcessor, number: int) -> None:
    """Each replica sends its running totals for some panes."""
    began = processor.now_ns
    for pane in range(1, PANES + 1):
        processor.now_ns += PANE_NS
        for replica in range(REPLICAS):
            request = support.MetricsRequest(f"deploy-{number}-replica-{replica}")
            for model in range(MODELS):
                name, end_ns = f"model-{model}", processor.now_ns - 1
                request.predictions("a", 200 * pane, began, end_ns, model=name, temporality=support.CUMULATIVE)
                for feature in range(FEATURES):
                    counts = [100 * pane, 100 * pane]
                    request.feature(f"f{feature}", counts, began, end_ns, model=name, temporality=support.CUMULATIVE)
            processor.receive(request.message)
        processor.advance()
    processor.now_ns += 3 * PANE_NS
    processor.advance()


def main() -> None:
    checks = support.Checks()
    counted_before = 0
    with SimulatedProcessor() as processor:
        for number in range(1, DEPLOYS + 1):
            deploy(processor, number)
            models = processor.document()["models"].values()
            counted = sum(model["predictions"] or 0 for model in models)
            expected = MODELS * REPLICAS * PANES * 200
            is_right = counted - counted_before == expected
            checks.that(f"deploy {number}: {expected} predictions counted", is_right, counted - counted_before)
            counted_before = counted
            processor.now_ns += 30 * 60 * support.SECOND_NS
            processor.advance()
    checks.finish()


if __name__ == "__main__":
    main()
