"""The same counts from a cluster as from a laptop; needs Java 17 or newer."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import otel_mlmon.backtest
from otel_mlmon.backtest import spark
from otel_mlmon.backtest.counts import FirstRows
from otel_mlmon.errors import ConfigurationError
from tests.backtest.test_result import frame

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.e2e]

REFERENCE, DATA = frame(5_000, seed=1), frame(5_000, seed=2, shift=1.0)


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        message = "Java is not here: apt-get install openjdk-17-jre-headless"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    session = builder.config("spark.sql.session.timeZone", "UTC").config("spark.driver.host", "127.0.0.1").getOrCreate()
    yield session
    session.stop()


@pytest.mark.timeout(400)
def test_spark_counts_what_a_local_run_counts(session: Any) -> None:
    local = otel_mlmon.backtest.run(REFERENCE, DATA, window="20m", timestamp="at").to_dict()
    dataframe = session.createDataFrame(DATA.sample(frac=1, random_state=1))
    for partitions in (1, 2, 4):
        counts = spark.count(dataframe.repartition(partitions), REFERENCE, window="20m", timestamp="at")
        document = counts.judge().to_dict()
        assert {**document, "data": ""} == {**local, "data": ""}, partitions
    words = session.createDataFrame(DATA.assign(amount=["many", *map(str, DATA["amount"][1:])]))
    with pytest.raises(ConfigurationError, match=r"column 'amount': 'many' is not a number"):
        spark.count(words, REFERENCE, window="20m", timestamp="at")
    with pytest.raises(ConfigurationError, match="--engine spark: rows have no order there"):
        spark.count(dataframe, REFERENCE, window="1000", timestamp="at")


def test_rows_of_one_time_are_put_into_an_order_that_no_partitioning_changes() -> None:
    generator = np.random.default_rng(1)
    times_ns = np.repeat(np.arange(100, dtype=np.int64), 10)
    codes = generator.integers(0, 4, (2, 1_000)).astype(np.int16)
    expected: FirstRows | None = None
    for _ in range(5):
        order = np.lexsort((generator.random(1_000), times_ns))
        first = FirstRows(codes[:, order], times_ns[order], next_ns=99)
        note = spark._settle_time_ties(first)
        assert note.startswith("Of the first 990 rows 990 share their time with others")
        expected = expected or first
        np.testing.assert_array_equal(first.codes, expected.codes)
        assert first.times_ns.tolist() == times_ns[:990].tolist()


def test_rows_of_their_own_times_need_no_note() -> None:
    first = FirstRows(np.zeros((1, 3), dtype=np.int16), np.arange(3, dtype=np.int64))
    assert spark._settle_time_ties(first) == ""
