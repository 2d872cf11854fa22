"""From the columns of a file to the inputs of a model.

Arrays go to the inputs of their names; of a model with one input, an only array goes there whatever it is called. A
column of a table goes to the input of its name, and `<input>.f0`, `<input>.f1`, … make up a wider one; the columns
that are left, in the order of the file, are those of the one input that is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.errors import DataError
from otel_mlmon.reference.data import Data, numbers, texts

_DTYPES: Final = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class Node(Protocol):
    """An input of a model, as onnxruntime's `NodeArg` describes it."""

    name: str
    type: str
    shape: Sequence[object]


class Arranged(NamedTuple):
    """What a model is fed."""

    arrays: dict[str, NDArray[Any]]
    """By input, shape (n, …) each."""
    columns: tuple[str, ...]
    """Of a table: the columns in the order in which the inputs have them; else empty."""


def arrange(nodes: Sequence[Node], data: Data, *, main: str = "") -> Arranged:
    """An array for every input.

    Args:
        nodes: The model's inputs.
        data: Without the labels.
        main: The input that takes the columns of a table which are not named as one; empty to find it.

    Raises:
        DataError: The data does not fit; says what the model takes and what the file has.
    """
    if main and main not in [node.name for node in nodes]:
        raise DataError(f"the model has no input {main!r}; it takes {_taken(nodes)}")
    chosen = _columns_of(nodes, data, main) if data.is_table else _arrays_of(nodes, data)
    return Arranged(
        arrays={node.name: _array(node, data, chosen[node.name]) for node in nodes},
        columns=tuple(name for node in nodes for name in chosen[node.name]) if data.is_table else (),
    )


def _arrays_of(nodes: Sequence[Node], data: Data) -> dict[str, list[str]]:
    if len(nodes) == 1 and len(data.columns) == 1:
        return {nodes[0].name: list(data.columns)}
    missing = [node for node in nodes if node.name not in data.columns]
    if missing:
        raise DataError(f"{data.name} has {_held(data)}; the model takes {_taken(nodes)}")
    return {node.name: [node.name] for node in nodes}


def _columns_of(nodes: Sequence[Node], data: Data, main: str) -> dict[str, list[str]]:
    chosen: dict[str, list[str]] = {}
    left = list(data.columns)
    for node in nodes:
        own = [name for name in left if name == node.name] or _parts(node.name, left)
        # An only column that is named as a wide input would be one of its columns, not all of them.
        if node.name != main and own and (_width(node) or len(own)) == len(own):
            chosen[node.name] = own
            left = [name for name in left if name not in own]
    rest = [node for node in nodes if node.name not in chosen]
    if len(rest) > 1:
        raise DataError(f"{data.name} has {_held(data)}; the model takes {_taken(nodes)}")
    if rest:
        chosen[rest[0].name] = left
        width = _width(rest[0])
        if not left or (width and width != len(left)):
            raise DataError(
                f"{data.name} has {len(left)} columns for the input {rest[0].name} ({', '.join(left) or 'none'}); "
                f"it takes {width or 'at least 1'}. --columns says which, in order."
            )
    return chosen


def _parts(name: str, left: Sequence[str]) -> list[str]:
    found: list[str] = []
    while f"{name}.f{len(found)}" in left:
        found.append(f"{name}.f{len(found)}")
    return found


def _array(node: Node, data: Data, columns: Sequence[str]) -> NDArray[Any]:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise DataError(f"the input {node.name} is of type {node.type}, which no file holds")
    parts = [_values(node, data, column, dtype) for column in columns]
    array = parts[0] if not data.is_table else np.stack(parts, axis=1)
    row_shape = tuple(size if isinstance(size, int) and size > 0 else 0 for size in node.shape[1:])
    fits = len(row_shape) == array.ndim - 1 and all(
        want in (0, have) for want, have in zip(row_shape, array.shape[1:], strict=True)
    )
    if not fits and 0 not in row_shape and int(np.prod(row_shape)) == array[0].size:
        return array.reshape(len(array), *row_shape)
    if not fits:
        raise DataError(
            f"{data.name}: {', '.join(columns)} is of shape {array.shape}; the model takes {_taken([node])}"
        )
    return np.ascontiguousarray(array)


def _values(node: Node, data: Data, column: str, dtype: str) -> NDArray[Any]:
    values = data.columns[column]
    if dtype == "object":
        words = np.array([text if text is not None else "" for text in texts(data, column)], dtype=object)
        return words.reshape(values.shape)
    if values.dtype.kind in "biuf" and dtype.startswith("float"):
        return values.astype(dtype)
    found = numbers(data, column) if values.ndim == 1 or values.dtype.kind in "biuf" else values
    if found.dtype.kind not in "biuf":
        raise DataError(f"{data.name}: {column} holds no numbers; the model takes {_taken([node])}")
    if not dtype.startswith("float"):
        _demand_whole(node, data, column, found)
    with np.errstate(over="ignore"):
        return found.astype(dtype)


def _demand_whole(node: Node, data: Data, column: str, found: NDArray[Any]) -> None:
    flat = found.reshape(len(found), -1)
    odd = np.flatnonzero(~(np.isfinite(flat) & (flat == np.floor(flat))).all(axis=1))
    if odd.size:
        row = int(odd[0])
        (value,) = data.columns[column][row : row + 1].tolist()
        told = "is missing" if np.isnan(flat[row]).any() else f"{value!r} is not a whole number"
        raise DataError(f"{data.place(row)}: column {column}: {told}; the input {node.name} is of type {node.type}")


def _width(node: Node) -> int:
    """Columns that an input takes; 0 if any number."""
    sizes = node.shape[1:]
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return 0
    return int(np.prod([size for size in sizes if isinstance(size, int)], dtype=np.int64))


def _taken(nodes: Sequence[Node]) -> str:
    def shape(node: Node) -> str:
        return " × ".join(str(size) if isinstance(size, int) else "n" for size in node.shape)

    return ", ".join(f"{node.name} ({node.type.removeprefix('tensor(').rstrip(')')}, {shape(node)})" for node in nodes)


def _held(data: Data) -> str:
    def shape(values: NDArray[Any]) -> str:
        return "" if data.is_table else f" ({' × '.join(map(str, values.shape))})"

    return ", ".join(f"{name}{shape(values)}" for name, values in data.columns.items()) or "no columns"
