from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from otel_mlmon.errors import DataError
from otel_mlmon.reference.model_inputs import ModelInputData, arrange_model_inputs


@dataclass
class Input:
    name: str
    shape: Sequence[object]
    type: str = "tensor(float)"


def table(**columns: list[Any]) -> ModelInputData:
    contents = {}
    for name, values in columns.items():
        contents[name] = np.empty(len(values), dtype=object)
        contents[name][:] = values
    return ModelInputData(name="d.csv", columns=contents, is_table=True, locate=lambda row: f"d.csv:{row + 2}")


def arrays(**columns: Any) -> ModelInputData:
    contents = {name: np.asarray(values) for name, values in columns.items()}
    return ModelInputData(name="d.npz", columns=contents, is_table=False, locate=lambda row: f"d.npz: row {row}")


def test_the_columns_of_a_table_are_those_of_the_one_input_in_their_order() -> None:
    fed = arrange_model_inputs([Input("x", ["N", 2])], table(b=["1", ""], a=["3", "4"]))
    assert fed.columns == ("b", "a")
    assert fed.arrays["x"].dtype == np.float32
    assert np.array_equal(fed.arrays["x"], np.array([[1, 3], [np.nan, 4]], dtype=np.float32), equal_nan=True)


def test_columns_go_to_the_inputs_of_their_names_and_the_rest_to_the_one_that_is_left() -> None:
    nodes = [
        Input("age", ["N", 1], "tensor(int64)"),
        Input("rest", [None, 2]),
        Input("city", ["N", 1], "tensor(string)"),
    ]
    fed = arrange_model_inputs(nodes, table(u=["0.5"], city=["Bonn"], v=["1.5"], age=["41"]))
    assert fed.columns == ("age", "u", "v", "city")
    assert fed.arrays["age"].tolist() == [[41]]
    assert fed.arrays["rest"].tolist() == [[0.5, 1.5]]
    assert fed.arrays["city"].tolist() == [["Bonn"]]


def test_columns_named_as_the_application_names_them_make_up_a_wide_input() -> None:
    nodes = [Input("a", ["N", 2]), Input("b", ["N", 2])]
    data = table(**{"b.f0": ["1"], "a.f1": ["2"], "b.f1": ["3"], "a.f0": ["4"]})
    assert {name: values.tolist() for name, values in arrange_model_inputs(nodes, data).arrays.items()} == {
        "a": [[4, 2]], "b": [[1, 3]],
    }  # fmt: skip


def test_which_input_the_columns_are_for_can_be_said() -> None:
    nodes = [Input("x", ["N", None]), Input("k", ["N", 1])]
    fed = arrange_model_inputs(nodes, table(x=["1"], y=["2"], k=["3"]), main="x")
    assert fed.columns == ("x", "y", "k")
    with pytest.raises(DataError, match="the model has no input 'z'; it takes x"):
        arrange_model_inputs(nodes, table(x=["1"]), main="z")


def test_a_row_is_brought_to_the_shape_of_an_image() -> None:
    fed = arrange_model_inputs([Input("image", ["N", 1, 2, 2])], table(a=["1"], b=["2"], c=["3"], d=["4"]))
    assert fed.arrays["image"].tolist() == [[[[1, 2], [3, 4]]]]


def test_arrays_go_to_inputs_by_name_or_alone() -> None:
    assert arrange_model_inputs([Input("x", ["N", 2])], arrays(train=np.ones((3, 2)))).arrays["x"].shape == (3, 2)
    nodes = [Input("x", ["N", 2], "tensor(double)"), Input("k", ["N"], "tensor(int32)")]
    fed = arrange_model_inputs(nodes, arrays(k=[1, 2], other=[0, 0], x=np.ones((2, 2), dtype=np.uint8)))
    assert {name: (values.shape, str(values.dtype)) for name, values in fed.arrays.items()} == {
        "x": ((2, 2), "float64"), "k": ((2,), "int32"),
    }  # fmt: skip
    assert fed.columns == ()


@pytest.mark.parametrize(
    ("nodes", "data", "message"),
    [
        ([Input("x", ["N", 3])], table(a=["1"], b=["2"]),
         "d.csv has 2 columns for the input x (a, b); it takes 3. "
         "Name the columns with --columns, in the model's order."),
        ([Input("x", ["N", 2]), Input("y", ["N", 2])], table(a=["1"]),
         "d.csv has a; the model takes x (float, n × 2), y (float, n × 2)"),
        ([Input("x", ["N", 3])], arrays(x=np.ones((5, 2))),
         "d.npz: x is of shape (5, 2); the model takes x (float, n × 3)"),
        ([Input("x", ["N", 3]), Input("y", ["N"])], arrays(x=np.ones((5, 3))),
         "d.npz has x (5 × 3); the model takes x (float, n × 3), y (float, n)"),
        ([Input("x", ["N", 1], "tensor(int64)")], table(x=["1", "2.5"]),
         "d.csv:3: column x: '2.5' is not a whole number; the input x is of type tensor(int64)"),
        ([Input("x", ["N", 2], "tensor(int64)")], arrays(x=[[1.0, 2.0], [1.5, 2.0]]),
         "d.npz: row 1: column x: [1.5, 2.0] is not a whole number; the input x is of type tensor(int64)"),
        ([Input("x", ["N", 1], "tensor(int64)")], table(x=["1", "2", None]),
         "d.csv:4: column x: is missing; the input x is of type tensor(int64)"),
        ([Input("x", ["N", 1], "seq(tensor(float))")], table(x=["1"]),
         "the input x is of type seq(tensor(float)), which no file holds"),
        ([Input("x", ["N", 2])], arrays(x=np.array([["a", "b"]])),
         "d.npz: x holds no numbers; the model takes x (float, n × 2)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_with_what_would(nodes: Sequence[Input], data: ModelInputData, message: str) -> None:
    with pytest.raises(DataError) as caught:
        arrange_model_inputs(nodes, data)
    assert str(caught.value) == message
