"""Counts the rows of a Spark DataFrame for a backtest on the cluster, and judges the counts on the driver.

Sums do not depend on the order of rows, so the result is that of a local run, however the rows are partitioned. A
DataFrame of Spark has no order, so windows are lengths of time. What is judged is judged on the driver, by the
processor's own steps: only counts leave the cluster. PySpark and Java are the user's:
`pip install "otel-mlmon[spark]"`.
"""

from __future__ import annotations

import os
import pickle
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from otel_mlmon.backtest.api import (
    add_required_columns,
    build_backtest_request,
    check_common_columns,
    load_backtest_reference,
)
from otel_mlmon.backtest.column_streams import ColumnStream, build_column_streams
from otel_mlmon.backtest.columns import ColumnChoice, ColumnKind, match_columns
from otel_mlmon.backtest.counting import CellFaultError, RowCounter, StreamCountPlan, WindowCountPlan
from otel_mlmon.backtest.counts import FIRST_ROWS, FirstRows, TableCounts
from otel_mlmon.backtest.replay_table import (
    TableDescription,
    build_count_plan,
    explain_cell_fault,
    judge_counts,
)
from otel_mlmon.backtest.report import BacktestReport
from otel_mlmon.backtest.request import BacktestRequest
from otel_mlmon.backtest.result import BacktestResult
from otel_mlmon.errors import ConfigurationError, DataError, DependencyMissingError
from otel_mlmon.reference.profile import Profile
from otel_mlmon.table.files import find_format_suffix
from otel_mlmon.table.table import ProgressCallback, Table, TableColumn, describe_arrow_column, ignore_progress

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

MERGING_TASKS: Final = 8
"""Tasks that merge the counts of partitions before the driver does."""
SAMPLE_ROWS: Final = 1_000
"""Rows that the driver looks at, to find the unit of times that are numbers."""
_NESTED: Final = re.compile(r"array|map|struct|variant|interval|binary|geo|udt")
"""Types whose cells are no number, text or time, as Spark names them."""
_READERS: Final[Mapping[str, str]] = {
    ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json",
}  # fmt: skip


Faults: TypeAlias = list[tuple[StreamCountPlan | None, object]]
"""The columns and the values of cells that cannot be counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkCounts:
    """The counts of a Spark DataFrame for a backtest, ready to be judged."""

    counts: TableCounts
    facts: TableDescription
    streams: tuple[ColumnStream, ...]
    choices: Mapping[str, ColumnChoice]
    request: BacktestRequest

    def judge(self, progress: ProgressCallback = ignore_progress) -> BacktestResult:
        """Judges the counts as a backtest does, and returns the result.

        Raises:
            ConfigurationError: There are too many windows.
        """
        report = judge_counts(self.request, self.counts, self.facts, self.streams, self.choices, progress)
        return BacktestResult(add_required_columns(self.request, report))


def run_on_spark(request: BacktestRequest, progress: ProgressCallback = ignore_progress) -> BacktestReport:
    """Runs a backtest on a table that Spark reads, with the Spark configuration of the environment.

    Raises:
        ConfigurationError: The request does not fit, or needs an order of rows; names the place.
        DataError: Spark cannot read the table.
        DependencyMissingError: PySpark or Java is missing.
    """
    _check_time_windows(request)
    session = _start_spark_session()
    profile, choices = load_backtest_reference(request, progress)
    return _count_requested_data(_read_spark_table(session, request), profile, request, choices).judge(progress).report


def count(
    dataframe: DataFrame,
    reference: object,
    *,
    window: str,
    timestamp: str,
    columns: Mapping[str, ColumnKind] | None = None,
    tolerance: float | str | None = None,
    false_alarms: int | str | None = None,
    require: Sequence[str] = (),
    decimal: str | None = None,
) -> SparkCounts:
    """Counts the rows of a Spark DataFrame for a backtest, window by window, over the bins of a reference.

    Args:
        dataframe: The data; only the columns that are judged, and the time, are read.
        reference: What is normal, as `otel_mlmon.backtest.run` has it: a profile, or a table that the driver reads.
        window: The length of a window, a time such as `1h`.
        timestamp: The column with the time of each row.
        columns: As all that follow: as `otel_mlmon.backtest.run` has it.
        tolerance: The share of the values that may change without being drift.
        false_alarms: How many are accepted over all columns.
        require: Columns that have to be judged.
        decimal: What separates the fraction in texts.

    Raises:
        ConfigurationError: An argument cannot be used, or columns do not fit; names the column.
        DataError: A table cannot be read.
    """
    request = build_backtest_request(
        reference, dataframe, window=window, columns=columns, timestamp=timestamp, tolerance=tolerance,
        false_alarms=false_alarms, require=require, decimal=decimal,
    )  # fmt: skip
    is_file = isinstance(reference, (str, os.PathLike))
    profile, choices = load_backtest_reference(request, ignore_progress, None if is_file else reference)
    return _count_requested_data(dataframe, profile, request, choices)


def _count_requested_data(
    dataframe: DataFrame, reference: Profile, request: BacktestRequest, choices: Mapping[str, ColumnChoice]
) -> SparkCounts:
    _check_time_windows(request)
    table = _describe_dataframe(dataframe, request)
    choices = choices or match_columns(reference, table)
    check_common_columns(request, table, choices)
    streams = build_column_streams(table, choices, reference)
    plan = build_count_plan(request, table, streams)
    counts = _collect_counts(dataframe, plan, table)
    notes = (_settle_time_ties(counts.first),)
    facts = TableDescription(source=request.data, columns=table.columns, notes=tuple(filter(None, notes)))
    return SparkCounts(counts=counts, facts=facts, streams=tuple(streams), choices=choices, request=request)


def _check_time_windows(request: BacktestRequest) -> None:
    if request.timestamp is None or request.window is None or not request.window.time_s:
        raise ConfigurationError(
            "--engine spark: rows have no order there, so --window has to be a time, such as 1h, and --timestamp the "
            "column with the time of each row"
        )


def _start_spark_session() -> SparkSession:
    try:
        from pyspark.sql import SparkSession

        session = SparkSession.builder.appName("otel-mlmon backtest").getOrCreate()
        if str(session.sparkContext.master).startswith("local") and "PYSPARK_PYTHON" not in os.environ:
            session.sparkContext.pythonExec = sys.executable  # and not whatever `python3` is
    except ImportError as error:
        raise DependencyMissingError('--engine spark needs PySpark: pip install "otel-mlmon[spark]"') from error
    except _list_spark_errors() as error:
        raise DependencyMissingError(
            f"--engine spark: Spark cannot be started, it needs Java 17 or newer (JAVA_HOME): {error}"
        ) from error
    return session


def _read_spark_table(session: SparkSession, request: BacktestRequest) -> DataFrame:
    source = request.data
    kind = _READERS.get(find_format_suffix(source), "parquet")
    options = {
        "header": "true",
        "encoding": request.encoding or "utf-8",
        "quote": '"',
        "escape": '"',
        "multiLine": "true",
    }
    try:
        if kind == "csv":
            delimiter = "\t" if find_format_suffix(source) == ".tsv" else ","
            return session.read.options(**options, sep=delimiter, mode="FAILFAST").csv(source)
        return session.read.json(source) if kind == "json" else session.read.parquet(source)
    except _list_spark_errors() as error:
        raise DataError(f"{source}: Spark cannot read it: {_explain_spark_error(error)}") from error


def _describe_dataframe(dataframe: DataFrame, request: BacktestRequest) -> Table:
    """Describes a Spark DataFrame as a table, of which only the first rows are read on the driver."""
    names = list(dataframe.columns)
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise DataError(f"{request.data}: column {doubled!r} is there twice")
    nested = [entry.name for entry in dataframe.schema.fields if _NESTED.match(entry.dataType.simpleString())]
    readable = [_quote_column_name(name) for name in names if name not in nested]
    types = {entry.name: entry.type for entry in dataframe.select(*readable).limit(0).toArrow().schema}

    def scan_columns(columns: Iterable[str]) -> Iterator[pa.RecordBatch]:
        quoted = [_quote_column_name(name) for name in columns]
        try:
            yield from dataframe.select(*quoted).limit(SAMPLE_ROWS).toArrow().to_batches()
        except _list_spark_errors() as error:
            raise DataError(f"{request.data}: Spark cannot read it: {_explain_spark_error(error)}") from error

    columns = {
        name: describe_arrow_column(name, types[name])
        if name in types
        else TableColumn(name=name, kind="unreadable", type_name=dataframe.schema[name].dataType.simpleString())
        for name in names
    }
    table = Table(source=request.data, columns=columns, rows=0, scan=scan_columns, locate=lambda _: request.data)
    return table.with_decimal_separator(request.decimal)


def _collect_counts(dataframe: DataFrame, plan: WindowCountPlan, table: Table) -> TableCounts:
    def count_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield _pack_counts(_count_partition(plan, batches))

    def merge_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield _pack_counts(_merge_partitions(plan, (row for batch in batches for row in batch.column(0).to_pylist())))

    selected = dataframe.select(*(_quote_column_name(name) for name in plan.column_names))
    parts = selected.mapInArrow(count_partition, "counts binary").repartition(MERGING_TASKS)
    try:
        rows = parts.mapInArrow(merge_partition, "counts binary").collect()
    except _list_spark_errors() as error:
        raise DataError(f"{table.source}: Spark cannot count it: {_explain_spark_error(error)}") from error
    total = _merge_partitions(plan, (bytes(row["counts"]) for row in rows))
    if isinstance(total, list):
        raise ConfigurationError(*(explain_cell_fault(plan, table, 0, *fault) for fault in total))
    total.disorder = 0
    return total


def _pack_counts(result: TableCounts | Faults) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.RecordBatch.from_pydict({"counts": [pickle.dumps(result)]})


def _merge_partitions(plan: WindowCountPlan, parts: Iterable[bytes]) -> TableCounts | Faults:
    """Merges the counts of all Spark partitions, or collects the faulty cells of any of them."""
    total = TableCounts.build_empty(len(plan.streams), has_times=True)
    faults: Faults = []
    for content in parts:
        part = pickle.loads(content)  # noqa: S301 - made by `_pack_counts`
        if isinstance(part, list):
            faults += part
        else:
            total.merge(part)
    return faults or total


def _count_partition(plan: WindowCountPlan, batches: Iterable[pa.RecordBatch]) -> TableCounts | Faults:
    """Counts the rows of one Spark partition; returns the faulty cells if some cannot be counted."""
    counter = RowCounter(plan)
    try:
        for batch in batches:
            counter.count_batch(batch)
    except CellFaultError as error:
        return [(stream, value) for _, stream, value in error.faults]
    return counter.result


def _settle_time_ties(first: FirstRows) -> str:
    """Sorts first rows of equal time, so that the result does not depend on partitions; notes where there are any.

    Rows of one time are shuffled, always the same way. Of those of the last time only a part may have been kept: they
    are left out, unless nothing else is there.
    """
    is_settled = first.times_ns < first.next_ns
    if is_settled.any() and not is_settled.all():
        first.times_ns, first.codes = first.times_ns[is_settled], first.codes[:, is_settled]
    order = np.lexsort((*first.codes, first.times_ns))
    times_ns, codes = first.times_ns[order], first.codes[:, order]
    starts = np.flatnonzero(np.diff(times_ns, prepend=times_ns[:1] - 1))
    sizes = np.diff([*starts, times_ns.size])
    for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        shuffled = np.random.default_rng(size).permutation(size) + start
        codes[:, start : start + size] = codes[:, shuffled]
    first.times_ns, first.codes = times_ns, codes
    shared = int(sizes[sizes > 1].sum()) if times_ns.size else 0
    if shared < times_ns.size / 2:
        return ""
    return (
        f"Of the first {min(times_ns.size, FIRST_ROWS)} rows {shared} share their time with others; Spark has no order "
        "for them, so bursts within it are not known."
    )


def _list_spark_errors() -> tuple[type[Exception], ...]:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    return (PySparkException, Py4JError)


def _explain_spark_error(error: Exception) -> str:
    """Returns the line of a Spark error that tells its cause."""
    lines = str(error).strip().split("\n")
    causes = [line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception): ", line)]
    return causes[-1] if causes else lines[0]


def _quote_column_name(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
