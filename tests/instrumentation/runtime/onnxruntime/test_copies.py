from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from otel_mlmon.instrumentation.runtime.call import FIELDS, RECORD_BYTES, Item, Layout, Side, Tensor
from otel_mlmon.instrumentation.runtime.input_sample import compute_sample_interval, compute_sample_positions
from otel_mlmon.instrumentation.runtime.onnxruntime.copies import (
    MAX_IMAGE_BYTES,
    MAX_INPUT_BYTES,
    MAX_OUTPUT_BYTES,
    MAX_TEXT_CHARACTERS,
    MAX_TEXTS,
    MAX_WHOLE_BYTES,
    MAX_WIDE_ROWS,
    SAMPLE_BYTES,
    SMALL_BYTES,
    TEXT_BYTES,
    estimate_copied_bytes,
    join_call_copies,
    make_call_copier,
    make_tensor_copier,
)
from otel_mlmon.instrumentation.runtime.onnxruntime.plans import is_recurrent_state, plan_input, plan_output
from tests.support.calls import Node, Sink, copies, planned, records_of


@pytest.mark.parametrize(
    ("items", "side", "weight"),
    [
        ([], (), 0),
        ([b"abc"], b"abc", 3),
        ([None], (None,), 0),
        ([b"abc", None], (b"abc", None), 3),
        ([((9, 2), b"abcd")], (((9, 2), b"abcd"),), 104),
        ([((2,), ("bee", "fly!"))], (((2,), ("bee", "fly!")),), 107 + 2 * TEXT_BYTES),
    ],
)
def test_a_side_is_bare_if_it_is_one_array_copied_whole_and_weighs_what_it_holds(
    items: list[Item], side: Side, weight: int
) -> None:
    assert (join_call_copies(items), estimate_copied_bytes(items)) == (side, RECORD_BYTES + weight)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"a": 0.5, "b": 0.25}], ((1, 2), np.array([0.5, 0.25], np.float32).tobytes())),
        ([{"a": 0.5, "b": 0.25}, {"a": 1.0}], ((2, 2), b"")),
        ([], None),
        ("no list", None),
    ],
)
def test_dictionaries_of_scores_are_copied_as_a_table_if_they_are_one(rows: object, expected: Item) -> None:
    assert make_tensor_copier(Tensor(name="p", layout="maps", dtype="float32"), is_input=False)(rows) == expected


@pytest.mark.parametrize("made_rows", [1, 2, SMALL_BYTES])
def test_outputs_of_other_sizes_than_inputs_are_copied_whole(made_rows: int) -> None:
    table = np.arange(2, dtype=np.float32).reshape(-1, 2)
    made = np.arange(2 * made_rows, dtype=np.float32).reshape(-1, 2)
    plan, positions = planned({"x": table}, {"y": table})
    sink = Sink(queue=["of another call"] * FIELDS)
    make_call_copier(plan, positions, sink=sink, context=lambda _: "here")({"x": table}, [made], 1, 2)
    _, call = records_of(sink.queue)
    assert call == (plan, 1, 2, "here", table.tobytes(), made.tobytes(), None)


def test_the_bounds() -> None:
    """What a call may cost the host is decided, and is not changed by the way."""
    assert (SMALL_BYTES, MAX_INPUT_BYTES, SAMPLE_BYTES) == (1024, 4096, 1024)
    assert (MAX_OUTPUT_BYTES, MAX_IMAGE_BYTES, MAX_WHOLE_BYTES) == (65_536, 65_536, 1_048_576)
    assert (MAX_TEXTS, MAX_TEXT_CHARACTERS, TEXT_BYTES, RECORD_BYTES) == (64, 256, 60, 400)


def table(rows: int, width: int) -> Any:
    return np.arange(rows * width, dtype=np.float32).reshape(rows, width)


def copied(layout: Layout, value: object, *, is_input: bool, row_shape: tuple[int, ...] | None = None) -> Item:
    return make_tensor_copier(Tensor(name="t", layout=layout, dtype="float32", row_shape=row_shape), is_input=is_input)(
        value
    )


@pytest.mark.parametrize(
    ("is_input", "limit_bytes", "sample_bytes"),
    [(True, MAX_INPUT_BYTES, SAMPLE_BYTES), (False, MAX_OUTPUT_BYTES, MAX_OUTPUT_BYTES)],
)
@pytest.mark.parametrize("width", [1, 4, 16])
def test_a_large_table_is_thinned_to_whole_rows_at_a_constant_step(
    is_input: bool, limit_bytes: int, sample_bytes: int, width: int
) -> None:
    fitting = limit_bytes // (4 * width)
    whole = table(fitting, width)
    assert copied("rows", whole, is_input=is_input, row_shape=(width,)) == whole.tobytes()
    assert copied("rows", whole, is_input=is_input) == (whole.shape, whole.tobytes())
    for rows in (fitting + 1, 3 * fitting, 10 * fitting + 7):
        large = table(rows, width)
        step = -(-large.nbytes // sample_bytes)
        assert copied("rows", large, is_input=is_input, row_shape=(width,)) == (large.shape, large[::step].tobytes())
        assert large[::step].nbytes <= sample_bytes


@pytest.mark.parametrize(("is_input", "limit_bytes"), [(True, MAX_INPUT_BYTES), (False, MAX_OUTPUT_BYTES)])
def test_of_a_table_only_rows_that_are_not_too_wide_are_copied(is_input: bool, limit_bytes: int) -> None:
    wide, too_wide = table(2, 4 * limit_bytes), table(2, 4 * limit_bytes + 1)
    assert copied("rows", wide, is_input=is_input) == (wide.shape, wide[:1].tobytes())
    assert copied("rows", too_wide, is_input=is_input) == (too_wide.shape, b"")


def test_of_a_list_the_head_is_copied() -> None:
    rows = [[float(row), 1.0] for row in range(MAX_TEXTS + 1)]
    head = np.array(rows[:MAX_TEXTS], np.float32).tobytes()
    assert copied("rows", rows, is_input=True) == ((MAX_TEXTS + 1, 2), head)
    assert copied("rows", np.array(["a"], dtype=object), is_input=True) is None


@pytest.mark.parametrize("side", [30, 32, 33, 100])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("is_contiguous", [True, False])
def test_of_a_large_image_a_sample_of_its_pixels_is_copied(layout: Layout, side: int, is_contiguous: bool) -> None:
    shape = (2, 3, side, side + 2) if layout == "nchw" else (2, side, side + 2, 3)
    pixels = np.random.default_rng(7).random((*shape[:3], 2 * shape[3]), dtype=np.float32)[:, :, :, ::2]
    if is_contiguous:
        pixels = np.ascontiguousarray(pixels)
    positions = compute_sample_positions(side, side + 2)
    flat = pixels.reshape((2, 3, -1) if layout == "nchw" else (2, -1, 3))
    expected = flat if positions is None else flat[:, :, positions] if layout == "nchw" else flat[:, positions]
    assert (positions is None) is (side < 32)
    assert copied(layout, pixels, is_input=True) == (shape, expected.tobytes())
    assert copied(layout, pixels.astype(np.float64), is_input=True) is None


@pytest.mark.parametrize("shape", [(1, 2000), (3, 80, 100), (40, 2000), (2, 1, 16_000)])
def test_of_wide_rows_as_many_values_of_each_are_copied(shape: tuple[int, ...]) -> None:
    rows = np.random.default_rng(7).random(shape, dtype=np.float32)
    flat = rows.reshape(shape[0], -1)
    expected = flat[:: -(-shape[0] // MAX_WIDE_ROWS), :: compute_sample_interval(flat.shape[1])]
    assert copied("wide", rows, is_input=True) == (shape, expected.tobytes())
    assert 256 <= expected.shape[1] <= 1024
    assert len(expected) <= MAX_WIDE_ROWS


def test_wide_rows_that_are_no_contiguous_array_are_copied_if_they_are_small() -> None:
    small, large = (np.ones((4, width), np.float32)[:, ::2] for width in (4000, 40_000))
    assert copied("wide", small, is_input=True) == copied("wide", small.copy(), is_input=True)
    assert copied("wide", large, is_input=True) == ((4, 20_000), b"")
    assert copied("wide", np.zeros((0, 5), np.float32), is_input=True) == ((0, 5), b"")
    assert [copied("wide", value, is_input=True) for value in ([1.0], np.array([["a"]], dtype=object))] == [None, None]


@pytest.mark.parametrize("images", [MAX_IMAGE_BYTES // 1024, MAX_IMAGE_BYTES // 1024 + 1])
def test_of_many_images_some_are_copied(images: int) -> None:
    pixels = np.random.default_rng(7).random((images, 1, 16, 16), dtype=np.float32)
    every = 1 if images * 1024 <= MAX_IMAGE_BYTES else 2
    assert copied("nchw", pixels, is_input=True) == (pixels.shape, pixels[::every].tobytes())


@pytest.mark.parametrize(("rows", "step"), [(MAX_TEXTS, 1), (MAX_TEXTS + 1, 2), (3 * MAX_TEXTS, 3)])
def test_of_many_strings_some_are_copied_and_cut(rows: int, step: int) -> None:
    texts = [str(row) + "x" * MAX_TEXT_CHARACTERS for row in range(rows)]
    cut = tuple(text[:MAX_TEXT_CHARACTERS] for text in texts[::step])
    assert copied("text", texts, is_input=True) == ((rows,), cut)
    assert copied("text", np.array(texts, dtype=object).reshape(-1, 1), is_input=True) == ((rows, 1), cut)


def test_of_one_wide_row_of_strings_the_first_are_copied() -> None:
    texts = np.array([[str(column) for column in range(MAX_TEXTS * 5)]], dtype=object)
    assert copied("text", texts, is_input=True) == (texts.shape, tuple(texts[0, : MAX_TEXTS * 4]))


@pytest.mark.parametrize(
    ("rows", "step"),
    [(MAX_OUTPUT_BYTES // 8, 1), (MAX_OUTPUT_BYTES // 8 + 1, 2), (MAX_OUTPUT_BYTES // 4, 2)],
)
def test_of_many_dictionaries_of_scores_some_are_copied(rows: int, step: int) -> None:
    maps = [{"a": row / rows, "b": 1 - row / rows} for row in range(rows)]
    expected = np.array([list(row.values()) for row in maps[::step]], np.float32).tobytes()
    assert copied("maps", maps, is_input=False) == ((rows, 2), expected)


@pytest.mark.parametrize("extra", [0, 1])
def test_a_whole_output_is_copied_unless_it_is_too_large(extra: int) -> None:
    values = np.zeros(MAX_WHOLE_BYTES // 4 + extra, np.float32)
    assert copied("whole", values, is_input=False) == (values.shape, b"" if extra else values.tobytes())


@pytest.mark.parametrize("waiting", [0, 1, 7, 8])
@pytest.mark.parametrize("extra_bytes", [0, 4])
def test_small_calls_are_appended_by_the_short_way_only_where_it_is_safe(waiting: int, extra_bytes: int) -> None:
    """An empty queue, one that is long, and an array above the limit go through `offer`, which counts bytes."""
    offered: list[int] = []

    class Offers(Sink):
        def offer(self, record: Any, size_bytes: int) -> None:
            offered.append(size_bytes)
            super().offer(record, size_bytes)

    rows = (SMALL_BYTES + extra_bytes) // 4
    plan, positions = planned({"x": table(2, 1)}, {"y": table(2, 1)})
    sink = Offers(queue=["of another call"] * FIELDS * waiting, high_water=8)
    make_call_copier(plan, positions, sink=sink, context=lambda _: None)({"x": table(rows, 1)}, [table(rows, 1)], 1, 2)
    is_short = 0 < waiting < 8 and not extra_bytes
    assert offered == ([] if is_short else [RECORD_BYTES + 2 * (SMALL_BYTES + extra_bytes)])
    assert records_of(sink.queue)[-1][4:6] == (table(rows, 1).tobytes(), table(rows, 1).tobytes())


def test_the_short_way_ends_where_small_calls_could_fill_the_bytes() -> None:
    offered: list[int] = []

    class Offers(Sink):
        def offer(self, record: Any, size_bytes: int) -> None:
            offered.append(len(self.queue) // FIELDS)
            super().offer(record, size_bytes)

    plan, positions = planned({"x": table(2, 1)}, {"y": table(2, 1)})
    sink = Offers(max_bytes=5 * (2 * SMALL_BYTES + RECORD_BYTES) + 1)
    copy_call = make_call_copier(plan, positions, sink=sink, context=lambda _: None)
    for _ in range(7):
        copy_call({"x": table(1, 1)}, [table(1, 1)], 1, 2)
    assert offered == [0, 5, 6]


@pytest.mark.parametrize(
    ("shape", "as_input", "as_output"),
    [
        (["N", 1, 8, 8], "nchw", "shape"),
        (["N", 3, 8, 8], "nchw", "shape"),
        (["N", 4, 8, 8], "nchw", "shape"),
        (["N", 2, 8, 3], "nhwc", "shape"),
        (["N", 2, 8, 2], "shape", "shape"),
        (["N"], "rows", "rows"),
        (["N", 5], "rows", "rows"),
        (["N", 3, 2], "wide", "items"),
        (["N", 3, 1], "wide", "rows"),
        (["N", 1, 7], "wide", "rows"),
        (["N", 1024], "rows", "rows"),
        (["N", 1025], "wide", "rows"),
        (["N", 5, 1, 1], "nhwc", "rows"),
        ([], "none", "none"),
    ],
)
def test_a_tensor_is_an_image_a_table_or_only_its_shape(
    shape: list[object], as_input: Layout, as_output: Layout
) -> None:
    declared = Node(name="t", type="tensor(float)", shape=shape)
    assert (plan_input(declared, None).layout, plan_output(declared, None).layout) == (as_input, as_output)


@pytest.mark.parametrize(
    ("declared", "dtype"),
    [
        ("float", "float32"), ("double", "float64"), ("float16", "float16"), ("bool", "bool"),
        ("int8", "int8"), ("int16", "int16"), ("int32", "int32"), ("int64", "int64"),
        ("uint8", "uint8"), ("uint16", "uint16"), ("uint32", "uint32"), ("uint64", "uint64"),
        ("bfloat16", ""),
    ],
)  # fmt: skip
def test_a_tensor_has_the_element_type_that_it_declares(declared: str, dtype: str) -> None:
    for kind in (f"tensor({declared})", f"optional(tensor({declared}))"):
        tensor = plan_input(Node(name="t", type=kind, shape=["N", 2]), None)
        assert (tensor.dtype, tensor.layout) == (dtype, "rows" if dtype else "none")


def test_of_several_inputs_and_outputs_each_is_copied() -> None:
    small = table(1, 2)
    for feed, made in (({"x": small, "y": small + 1}, {"z": small}), ({"x": small}, {"y": small, "z": small + 1})):
        plan, positions = planned(feed, made)
        sink = Sink(queue=["of another call"] * FIELDS)
        make_call_copier(plan, positions, sink=sink, context=lambda _: None)(feed, list(made.values()), 1, 2)
        _, call = records_of(sink.queue)
        assert copies(call[4]) == tuple(array.tobytes() for array in feed.values())
        assert copies(call[5]) == tuple(array.tobytes() for array in made.values())


@pytest.mark.parametrize(
    ("name", "shape", "outputs", "is_fed_back"),
    [
        ("h", [2, "N", 64], {"hn": [2, "N", 64]}, True),
        ("c", [2, "N", 64], {"output": [2, "N", 64]}, True),
        ("state", [2, "N", 128], {"stateN": [2, "N", 128]}, True),
        ("hidden_state", [1, "N", 8], {"y": [1, "N", 8]}, True),
        ("past_key_values.0.key", ["N", 8, "past", 64], {"present.0.key": ["N", 8, "total", 64]}, True),
        ("cache", [1, "N", 8], {"scores": ["N", 2]}, False),
        ("state", ["N", 1], {"price": ["N", 1]}, False),
        ("sound", ["N", 1, 512], {"enhanced": ["N", 1, 512]}, False),
        ("chord", [1, "N", 8], {"y": [1, "N", 8]}, False),
    ],
)
def test_recurrent_states_are_no_features(
    name: str, shape: list[object], outputs: dict[str, list[object]], is_fed_back: bool
) -> None:
    kind = "tensor(float)"
    results = [Node(name=output, type=kind, shape=size) for output, size in outputs.items()]
    assert is_recurrent_state(Node(name=name, type=kind, shape=shape), results) is is_fed_back
