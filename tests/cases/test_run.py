"""Each case is right, or known to be wrong and then wrong by its result: a case that ends in a fault is neither."""

from __future__ import annotations

import pytest

from tests.cases.known import KNOWN_WRONG
from tests.cases.run import TIME_LIMIT_S, case_names, run_case

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(TIME_LIMIT_S + 60)]


def test_every_known_case_is_there() -> None:
    assert set(KNOWN_WRONG) <= set(case_names())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xfail(reason=KNOWN_WRONG[name], raises=AssertionError, strict=True))
        if name in KNOWN_WRONG
        else name
        for name in case_names()
    ],
)
def test_case(name: str) -> None:
    result = run_case(name)
    if result.verdict == "skipped":
        pytest.skip(result.reason)
    if result.verdict == "WRONG" and not result.is_about_a_result:
        pytest.fail(
            f"the case did not get as far as a result: {result.reason}"
        )  # not an AssertionError: never expected
    assert result.verdict == "right", result.reason
