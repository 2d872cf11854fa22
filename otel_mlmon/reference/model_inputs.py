"""Reads a model's inputs from a file: the columns of a table, or arrays by name (npz, npy).

Arrays go to the inputs of their names; an only array goes to an only input whatever it is called. A column of a table
goes to the input of its name, and `<input>.f0`, `<input>.f1`, … make up a wider one; the remaining columns, in the
order of the file, are those of the one remaining input.

A column of a CSV file stays text until its use is known: `01` may be a number or a postcode.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.errors import DataError
from otel_mlmon.table.cells import format_label, is_missing_value, parse_cell_numbers, parse_number_texts
from otel_mlmon.table.files import SUFFIXES, find_format_suffix
from otel_mlmon.table.read import read_table
from otel_mlmon.table.table import Table, TableColumn

ARRAY_SUFFIXES: Final = (".npz", ".npy")

_DTYPES: Final = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class ModelInput(Protocol):
    """The Protocol of one input of an ONNX model: its name, type and shape, as in onnxruntime's `NodeArg`."""

    name: str
    type: str
    shape: Sequence[object]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelInputData:
    """Holds the input data that a file contains, by column or array."""

    name: str
    """The file, for messages."""
    columns: Mapping[str, NDArray[Any]]
    """Columns by name, of one length. Those of a table have shape (n,), texts are objects with None where missing."""
    is_table: bool
    locate: Callable[[int], str]
    """Returns the place of a row, from 0, in its file."""
    decimals: Mapping[str, str] = field(default_factory=dict)
    """The character before the fraction of numbers in texts, by column; a point by default."""

    @property
    def row_count(self) -> int:
        """The number of rows in the input data."""
        return len(next(iter(self.columns.values()), ()))

    def take_rows(self, order: NDArray[np.intp]) -> ModelInputData:
        """Returns the input data with its rows in another order."""
        columns = {name: values[order] for name, values in self.columns.items()}
        return replace(self, columns=columns, locate=lambda row: self.locate(int(order[row])))

    def drop_column(self, column: str) -> ModelInputData:
        """Returns the input data without one column."""
        columns = {name: values for name, values in self.columns.items() if name != column}
        return replace(self, columns=columns)

    def select_columns(self, columns: Sequence[str]) -> ModelInputData:
        """Returns the input data with only the given columns, in the given order.

        Raises:
            DataError: One does not exist.
        """
        absent = next((name for name in columns if name not in self.columns), None)
        if absent is not None:
            raise DataError(f"{self.name} has no column {absent}; it has {', '.join(self.columns)}")
        return replace(self, columns={name: self.columns[name] for name in columns})


class ModelInputArrays(NamedTuple):
    """Holds the arrays that a model is run on, by input name, and the columns they were made of."""

    arrays: dict[str, NDArray[Any]]
    """The arrays by input, shape (n, …) each."""
    columns: tuple[str, ...]
    """The columns of a table in the order of the inputs; empty for arrays."""


def read_input_data(path: Path) -> ModelInputData:
    """Reads input data from a file, whose format is told by its name: a table, npz or npy.

    Raises:
        DataError: The file cannot be read, holds no rows, or its arrays are not of one length.
        DependencyMissingError: It is a table, and DuckDB or Arrow is not installed.
    """
    if path.suffix.lower() in ARRAY_SUFFIXES:
        arrays = _read_array_file(path)
        data = ModelInputData(name=str(path), columns=arrays, is_table=False, locate=lambda row: f"{path}: row {row}")
    elif find_format_suffix(str(path)) in SUFFIXES or path.is_dir():
        table = read_table(str(path))
        data = ModelInputData(
            name=table.source,
            columns=_read_table_columns(table),
            is_table=True,
            locate=table.locate,
            decimals={name: column.decimal for name, column in table.columns.items()},
        )
    else:
        raise DataError(f"{path}: the file name must end with one of {' '.join((*SUFFIXES, *ARRAY_SUFFIXES))}")
    if not data.row_count:
        raise DataError(f"{path}: holds no rows")
    if len({len(values) for values in data.columns.values()}) > 1:
        lengths = ", ".join(f"{name} {len(values)}" for name, values in data.columns.items())
        raise DataError(f"{path}: the arrays are not of one length: {lengths}")
    return data


def read_label_column(data: ModelInputData, column: str) -> list[str | None]:
    """Reads a column of the input data as labels; None where one is missing."""
    return [format_label(value) for value in data.columns[column].ravel().tolist()]


def sort_by_time(data: ModelInputData, column: str) -> NDArray[np.intp]:
    """Returns the positions of the rows in the order of a column of times, shape (n,); equal times keep their order.

    Args:
        data: The data.
        column: Numbers, such as seconds since 1970, or texts of ISO 8601.

    Raises:
        DataError: The column does not exist, or a cell is no time; names its place.
    """
    if column not in data.columns:
        raise DataError(f"{data.name} has no column {column}; it has {', '.join(data.columns)}")
    values = data.columns[column].ravel()
    if values.dtype.kind in "biuf":
        numbers = values.astype(np.float64)
    elif values.dtype.kind == "M":
        numbers = np.where(np.isnat(values), np.nan, values.astype("datetime64[us]").astype(np.float64))
    else:
        numbers = np.array([_parse_time(cell) for cell in values.tolist()])
    fault = np.flatnonzero(~np.isfinite(numbers))
    if fault.size:
        row = int(fault[0])
        raise DataError(f"{data.locate(row)}: {column} is no time: {values[row]!r}")
    return np.argsort(numbers, kind="stable")


def _parse_time(cell: object) -> float:
    """Parses a time, given as a number or an ISO 8601 text, as a number to sort by; NaN if it is no time."""
    if isinstance(cell, datetime):
        return cell.replace(tzinfo=cell.tzinfo or timezone.utc).timestamp()
    text = str(cell).strip()
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00").replace("z", "+00:00"))
    except ValueError:
        return math.nan
    return moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp()


def read_number_column(data: ModelInputData, column: str) -> NDArray[np.float64]:
    """Reads a column of the input data as numbers, shape (n,), NaN where one is missing.

    Raises:
        DataError: A value is no number; names its place.
    """
    values = data.columns[column]
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    cells = [value if isinstance(value, str) else _format_cell(value) for value in values.tolist()]
    numbers, first_text = parse_number_texts(cells, data.decimals.get(column, "."))
    if first_text >= 0:
        raise DataError(f"{data.locate(first_text)}: column {column}: {cells[first_text]!r} is not a number")
    return numbers


def arrange_model_inputs(inputs: Sequence[ModelInput], data: ModelInputData, *, main: str = "") -> ModelInputArrays:
    """Builds the array for every input of a model from the columns or arrays of the input data.

    Args:
        inputs: The model's inputs.
        data: The data, without labels.
        main: The input for the columns of a table that are not named as one; empty to find it.

    Raises:
        DataError: The data does not fit; says what the model takes and what the file has.
    """
    if main and main not in [node.name for node in inputs]:
        raise DataError(f"the model has no input {main!r}; it takes {_format_inputs(inputs)}")
    columns = _assign_input_columns(inputs, data, main) if data.is_table else _assign_input_arrays(inputs, data)
    return ModelInputArrays(
        arrays={node.name: _build_input_array(node, data, columns[node.name]) for node in inputs},
        columns=tuple(name for node in inputs for name in columns[node.name]) if data.is_table else (),
    )


def _read_table_columns(table: Table) -> dict[str, NDArray[Any]]:
    """Reads the columns of a table into memory, without those that no model takes, such as nested ones."""
    columns = [column for column in table.columns.values() if column.kind != "unreadable"]
    parts: dict[str, list[NDArray[Any]]] = {column.name: [] for column in columns}
    for batch in table.scan(list(parts)):
        for column, array in zip(columns, batch.columns, strict=True):
            parts[column.name].append(_convert_cells(column, array))
    return {name: np.concatenate(arrays) if arrays else np.zeros(0) for name, arrays in parts.items()}


def _convert_cells(column: TableColumn, array: Any) -> NDArray[Any]:
    """Converts the cells of a column to numbers, booleans or texts, by the column's type."""
    if column.kind == "number":
        return parse_cell_numbers(array).values
    if column.kind == "time":
        times = array.cast("timestamp[us]").to_pylist()
        return _build_object_array([None if time is None else str(time) for time in times])
    if column.kind == "boolean":
        return _build_object_array(array.to_pylist())
    return _build_object_array([None if cell is None or is_missing_value(cell) else cell for cell in array.to_pylist()])


def _format_cell(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return "nan" if value is None else str(value)


def _read_array_file(path: Path) -> dict[str, NDArray[Any]]:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return {path.stem: np.atleast_1d(content)}
        with content as archive:
            return {name: np.atleast_1d(archive[name]) for name in archive.files}
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: {error}") from error


def _build_object_array(values: Sequence[object]) -> NDArray[Any]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _assign_input_arrays(inputs: Sequence[ModelInput], data: ModelInputData) -> dict[str, list[str]]:
    if len(inputs) == 1 and len(data.columns) == 1:
        return {inputs[0].name: list(data.columns)}
    if any(node.name not in data.columns for node in inputs):
        raise DataError(f"{data.name} has {_format_columns(data)}; the model takes {_format_inputs(inputs)}")
    return {node.name: [node.name] for node in inputs}


def _assign_input_columns(inputs: Sequence[ModelInput], data: ModelInputData, main: str) -> dict[str, list[str]]:
    columns: dict[str, list[str]] = {}
    unassigned = list(data.columns)
    for node in inputs:
        own = [name for name in unassigned if name == node.name] or _find_part_columns(node.name, unassigned)
        # An only column that is named as a wide input would be one of its columns, not all of them.
        if node.name != main and own and (_count_input_columns(node) or len(own)) == len(own):
            columns[node.name] = own
            unassigned = [name for name in unassigned if name not in own]
    open_inputs = [node for node in inputs if node.name not in columns]
    if len(open_inputs) > 1:
        raise DataError(f"{data.name} has {_format_columns(data)}; the model takes {_format_inputs(inputs)}")
    for node in open_inputs:
        columns[node.name] = unassigned
        width = _count_input_columns(node)
        if not unassigned or (width and width != len(unassigned)):
            raise DataError(
                f"{data.name} has {len(unassigned)} columns for the input {node.name} "
                f"({', '.join(unassigned) or 'none'}); it takes {width or 'at least 1'}. "
                "Name the columns with --columns, in the model's order."
            )
    return columns


def _find_part_columns(name: str, columns: Sequence[str]) -> list[str]:
    parts: list[str] = []
    while f"{name}.f{len(parts)}" in columns:
        parts.append(f"{name}.f{len(parts)}")
    return parts


def _build_input_array(node: ModelInput, data: ModelInputData, columns: Sequence[str]) -> NDArray[Any]:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise DataError(f"the input {node.name} is of type {node.type}, which no file holds")
    parts = [_cast_column(node, data, column, dtype) for column in columns]
    array = parts[0] if not data.is_table else np.stack(parts, axis=1)
    row_shape = tuple(size if isinstance(size, int) and size > 0 else 0 for size in node.shape[1:])
    fits = len(row_shape) == array.ndim - 1 and all(
        size in (0, actual) for size, actual in zip(row_shape, array.shape[1:], strict=True)
    )
    if not fits and 0 not in row_shape and int(np.prod(row_shape)) == array[0].size:
        return array.reshape(len(array), *row_shape)
    if not fits:
        raise DataError(
            f"{data.name}: {', '.join(columns)} is of shape {array.shape}; the model takes {_format_inputs([node])}"
        )
    return np.ascontiguousarray(array)


def _cast_column(node: ModelInput, data: ModelInputData, column: str, dtype: str) -> NDArray[Any]:
    values = data.columns[column]
    if dtype == "object":
        texts = np.array(
            [label if label is not None else "" for label in read_label_column(data, column)], dtype=object
        )
        return texts.reshape(values.shape)
    if values.dtype.kind in "biuf" and dtype.startswith("float"):
        return values.astype(dtype)
    numbers = read_number_column(data, column) if values.ndim == 1 or values.dtype.kind in "biuf" else values
    if numbers.dtype.kind not in "biuf":
        raise DataError(f"{data.name}: {column} holds no numbers; the model takes {_format_inputs([node])}")
    if not dtype.startswith("float"):
        _check_whole_numbers(node, data, column, numbers)
    with np.errstate(over="ignore"):
        return numbers.astype(dtype)


def _check_whole_numbers(node: ModelInput, data: ModelInputData, column: str, numbers: NDArray[Any]) -> None:
    flat = numbers.reshape(len(numbers), -1)
    fractional = np.flatnonzero(~(np.isfinite(flat) & (flat == np.floor(flat))).all(axis=1))
    if fractional.size:
        row = int(fractional[0])
        (value,) = data.columns[column][row : row + 1].tolist()
        fault = "is missing" if np.isnan(flat[row]).any() else f"{value!r} is not a whole number"
        raise DataError(f"{data.locate(row)}: column {column}: {fault}; the input {node.name} is of type {node.type}")


def _count_input_columns(node: ModelInput) -> int:
    """Returns how many columns one input of a model takes; 0 if it takes any number."""
    sizes = node.shape[1:]
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return 0
    return int(np.prod([size for size in sizes if isinstance(size, int)], dtype=np.int64))


def _format_inputs(inputs: Sequence[ModelInput]) -> str:
    def format_shape(node: ModelInput) -> str:
        return " × ".join(str(size) if isinstance(size, int) else "n" for size in node.shape)

    return ", ".join(
        f"{node.name} ({node.type.removeprefix('tensor(').rstrip(')')}, {format_shape(node)})" for node in inputs
    )


def _format_columns(data: ModelInputData) -> str:
    def format_shape(values: NDArray[Any]) -> str:
        return "" if data.is_table else f" ({' × '.join(map(str, values.shape))})"

    return ", ".join(f"{name}{format_shape(values)}" for name, values in data.columns.items()) or "no columns"
