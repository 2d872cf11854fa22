from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from otel_mlmon.errors import DataError
from otel_mlmon.table.read import TABLE_SUFFIXES, read_table


@pytest.mark.parametrize("name", ["a.csv", "a.TSV", "a.txt", "a.parquet", "a.PQ"])
def test_a_file_is_read_as_its_ending_says(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix.lower() in (".parquet", ".pq"):
        pa = pytest.importorskip("pyarrow", reason='pip install "otel-mlmon[parquet]"')
        pytest.importorskip("pyarrow.parquet").write_table(pa.table({"x": [1.5, None]}), path)
    else:
        path.write_text("x\n1.5\nNA\n")
    assert path.suffix.lower() in TABLE_SUFFIXES
    table = read_table(path)
    numbers = table.columns["x"].numbers
    assert numbers is not None
    np.testing.assert_array_equal(numbers, [1.5, np.nan])
    assert (table.source, table.rows) == (str(path), 2)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("pyarrow", reason='pip install "otel-mlmon[parquet]"')
    path = tmp_path / f"none{suffix}"
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert str(caught.value) == f"{path}: No such file or directory"
