"""`otel-mlmon reference`: builds, downloads, shows and embeds the reference profile of a model, or learns it again."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otel_mlmon.cli.connection import ADMINISTRATOR, READER, add_connection_arguments, read_connection
from otel_mlmon.errors import DataError, ProfileError
from otel_mlmon.semconv import REFERENCE_METADATA_KEY

if TYPE_CHECKING:
    from otel_mlmon.reference.build import BuiltReference
    from otel_mlmon.reference.model_inputs import ModelInputData
    from otel_mlmon.reference.profile import Profile
    from otel_mlmon.sketch.stream_sketch import StreamSketch

HELP: Final = (
    "build a model's reference from data, export it from a processor, have it learned again, show it, embed it"
)
EXIT_CODES: Final = (
    "Exit codes: 0 success; 2 the model, the data, the processor or the profile cannot be used, and why is on stderr."
)

HEADER: Final = "header"
MAX_CLASSES: Final = 4
"""Classes of a stream that are shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `otel-mlmon reference`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def add_action_parser(name: str, description: str) -> argparse.ArgumentParser:
        text = f"{description[0].upper()}{description[1:]}."
        return actions.add_parser(name, help=description, description=text, epilog=EXIT_CODES)

    build = add_action_parser("build", "run a model on data and profile its inputs and outputs")
    build.add_argument("model", type=Path, metavar="MODEL.onnx")
    build.add_argument(
        "data", type=Path, metavar="DATA", help="CSV, Parquet, or .npz/.npy with one array for each input of the model"
    )
    build.add_argument(
        "--labels", metavar="COLUMN|FILE",
        help="the true labels, as a column of the data or a file with one column; with them the processor can "
        "estimate the accuracy in production",
    )  # fmt: skip
    order = build.add_mutually_exclusive_group()
    order.add_argument(
        "--time", metavar="COLUMN",
        help="the column with the time of each row; with it the profile knows how bursty values are (φ), and a "
        "processor that has it is not fooled by bursts from its first values on",
    )  # fmt: skip
    order.add_argument(
        "--in-order", action="store_true", help="the rows are in the order in which they came; as --time, without one"
    )
    build.add_argument(
        "--input", default="", metavar="NAME", help="the input that the columns belong to, if the model has several"
    )
    build.add_argument("--columns", type=_split_names, metavar="A,B,…", help="the columns to use, in the model's order")
    build.add_argument(
        "--features", type=_split_names, default=(), metavar="header|A,B,…",
        help="names of the features, as in ModelOptions(features=…) of the application; `header` takes the names of "
        "the columns (default: f0, f1, …)",
    )  # fmt: skip
    build.add_argument(
        "--keep-text", type=_split_names, default=(), metavar="A,B,…",
        help="features whose texts the profile names; any other text that the model does not declare is one of 64 "
        "buckets of a keyed hash (OTEL_MLMON_TEXT_KEY), as in the application",
    )  # fmt: skip
    build.add_argument(
        "--categorical", type=_split_names, default=(), metavar="A,B,…", help="features that are categories"
    )
    build.add_argument(
        "--output-kind", metavar="KIND", help="the kind of the output, as in ModelOptions(output_kind=…)"
    )
    build.add_argument(
        "--name", default="", help="the name of the model in the application (default: found in the model)"
    )
    build.add_argument("--model-version", default="", metavar="VERSION", help="its version (default: found likewise)")
    build.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: MODEL.reference.json")
    build.add_argument("--embed", type=Path, metavar="OUT.onnx", help="write the model with the profile inside")
    export = add_action_parser("export", "download the reference that a running processor compares a model with")
    export.add_argument("model", metavar="MODEL", help="the name of the model in the application")
    add_connection_arguments(export, READER)
    export.add_argument("--model-version", metavar="VERSION", help="the version, if the processor knows several")
    export.add_argument("--partial", action="store_true", help="leave out streams that are still learning")
    export.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: MODEL.reference.json")
    relearn = add_action_parser("relearn", "have a running processor learn references again: this is the new normal")
    relearn.add_argument("model", metavar="MODEL", help="the name of the model in the application")
    relearn.add_argument("--model-version", metavar="VERSION", help="the version, if the processor knows several")
    relearn.add_argument(
        "--stream", action="append", default=[], metavar="STREAM",
        help="whose reference, such as input.age; may be given several times (default: all that were learned)",
    )  # fmt: skip
    add_connection_arguments(relearn, ADMINISTRATOR)
    show = add_action_parser("show", "show a profile")
    show.add_argument("file", type=Path, metavar="FILE", help="a profile, or a model with a profile inside")
    embed = add_action_parser("embed", "put a profile into a model")
    embed.add_argument("file", type=Path, metavar="FILE", help="a profile, or a model with a profile inside")
    embed.add_argument("model", type=Path, metavar="MODEL.onnx", help="the model, which is not changed")
    embed.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT.onnx", help="the model with the profile inside"
    )


def run_command(arguments: argparse.Namespace) -> int:
    """Runs the action of `otel-mlmon reference` that the arguments name, and returns the exit code.

    Raises:
        DataError: The data or the model cannot be used.
        ProfileError: The profile cannot be used.
        ProcessorError: The processor does not answer, has no such reference, or refuses.
        ConfigurationError: `--output-kind` is not a kind of output, `--url` no address, or a certificate
            cannot be used.
        DependencyMissingError: onnxruntime or pyarrow is needed.
    """
    actions: dict[str, Callable[[argparse.Namespace], None]] = {
        "build": _build_reference,
        "export": _export_reference,
        "relearn": _relearn_reference,
        "show": _show_profile,
        "embed": _embed_reference,
    }
    actions[arguments.action](arguments)
    return 0


def _split_names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _build_reference(arguments: argparse.Namespace) -> None:
    from otel_mlmon.instrumentation.settings import OPTIONS, ModelOptions
    from otel_mlmon.options import resolve_option
    from otel_mlmon.processor.window.reference import measure_design_effects
    from otel_mlmon.reference.build import OnnxModel
    from otel_mlmon.reference.model_inputs import arrange_model_inputs, read_input_data, sort_by_time

    model = OnnxModel(arguments.model)
    data, truth = _split_labels(read_input_data(arguments.data), arguments.labels)
    if arguments.time:
        rows = sort_by_time(data, arguments.time)
        data = data.take_rows(rows).drop_column(arguments.time)
        truth = truth and [truth[row] for row in rows.tolist()]
    inputs = data.select_columns(arguments.columns) if arguments.columns else data
    feed = arrange_model_inputs(model.model_inputs, inputs, main=arguments.input)
    features = feed.columns if arguments.features == (HEADER,) else arguments.features
    options = ModelOptions(
        version=arguments.model_version,
        output_kind=arguments.output_kind,
        features=features,
        categorical=arguments.categorical,
        text_key=os.environ.get("OTEL_MLMON_TEXT_KEY", "").strip(),
        keep_text=arguments.keep_text,
    )
    (max_labels_option,) = (option for option in OPTIONS if option.name == "max_labels")
    max_labels: Any = resolve_option(max_labels_option, arguments={}, environ=os.environ)[0]
    with _show_progress(data.row_count) as progress:
        built = model.build_profile(
            feed.arrays,
            name=arguments.name,
            options=options,
            truth=truth,
            is_ordered=bool(arguments.time) or arguments.in_order,
            max_labels=max_labels,
            progress=progress,
        )
    if built.blocks:
        built = replace(built, profile=measure_design_effects(built.profile, built.blocks))
    targets = []
    if arguments.output or not arguments.embed:
        target = arguments.output or Path(f"{arguments.model.stem}.reference.json")
        with _explain_write_errors(target):
            built.profile.write_file(target)
        targets.append(target)
    if arguments.embed:
        _write_embedded_model(arguments.model, built.profile, arguments.embed)
        targets.append(arguments.embed)
    _print_built_reference(built, targets, () if features else feed.columns)


def _split_labels(data: ModelInputData, labels: str | None) -> tuple[ModelInputData, list[str | None] | None]:
    """Splits the true labels, a column of the data or a file of their own, from a model's input data."""
    from otel_mlmon.reference.model_inputs import read_input_data, read_label_column

    if labels is None:
        return data, None
    if labels in data.columns:
        return data.drop_column(labels), read_label_column(data, labels)
    if not Path(labels).is_file():
        raise DataError(f"--labels: {data.name} has no column {labels}, and there is no such file")
    label_data = read_input_data(Path(labels))
    if len(label_data.columns) != 1:
        raise DataError(f"--labels: {labels} has {len(label_data.columns)} columns; it must have one")
    if label_data.row_count != data.row_count:
        raise DataError(f"--labels: {labels} has {label_data.row_count} rows, {data.name} has {data.row_count}")
    return data, read_label_column(label_data, *label_data.columns)


@contextmanager
def _show_progress(rows: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("profiling", total=rows)
        yield lambda done: bar.update(task, completed=done)


def _write_embedded_model(model: Path, profile: Profile, target: Path) -> None:
    from otel_mlmon.reference.embedding import embed_profile
    from otel_mlmon.reference.profile import replace_file_content

    try:
        content = embed_profile(_read_file_bytes(model), profile)
    except ProfileError as error:
        raise ProfileError(f"{model}: {error}") from error
    with _explain_write_errors(target):
        replace_file_content(target, content)


@contextmanager
def _explain_write_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{target}: {error.strerror or error}") from error


def _read_file_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _print_built_reference(built: BuiltReference, targets: Sequence[Path], columns: Sequence[str]) -> None:
    profile = built.profile
    print(
        f"{_format_model(profile)}: {built.rows} rows, {len(profile.streams)} streams: {', '.join(map(str, targets))}"
    )
    if built.skipped_rows:
        print(
            f"{built.skipped_rows} rows at the end do not fill a batch of the model and are left out.", file=sys.stderr
        )
    _print_accuracy(profile)
    _print_design_effects(built)
    if columns:
        print(
            f"The features are named f0 ({columns[0]}) and so on, as in an application that does not name them; "
            "--features header names them as the columns.",
            file=sys.stderr,
        )


def _print_design_effects(built: BuiltReference) -> None:
    effects = built.profile.design_effects
    if effects:
        stream, effect = max(effects.items(), key=lambda item: item[1].estimate)
        print(f"values come in bursts of φ {effect.estimate:.1f} at most ({stream}), known of {len(effects)} streams")
        return
    reason = "the rows are too few" if built.blocks else "rows may be in any order; see --time and --in-order"
    print(f"How bursty values are (φ) is not in the profile: {reason}.", file=sys.stderr)


def _print_accuracy(profile: Profile) -> None:
    if profile.calibration is not None:
        labelled = int(profile.calibration.total.sum())
        print(f"accuracy {100 * profile.calibration.accuracy:.2f} % of {labelled} labelled rows")


def _export_reference(arguments: argparse.Namespace) -> None:
    from otel_mlmon.reference.download import download_reference

    reference = download_reference(
        read_connection(arguments, READER, os.environ),
        arguments.model,
        version=arguments.model_version,
        is_partial=arguments.partial,
    )
    profile = reference.profile
    target = arguments.output or Path(re.sub(r"[^\w.-]", "_", profile.model) + ".reference.json")
    with _explain_write_errors(target):
        profile.write_file(target)
    print(f"{_format_model(profile)}: {len(profile.streams)} streams: {target}")
    if reference.missing:
        print(f"Left out. {reference.missing}", file=sys.stderr)
    if profile.unstationary:
        print(_format_drift_warning(profile), file=sys.stderr)


def _relearn_reference(arguments: argparse.Namespace) -> None:
    from otel_mlmon.reference.relearn import request_relearning

    streams = request_relearning(
        read_connection(arguments, ADMINISTRATOR, os.environ),
        arguments.model,
        version=arguments.model_version,
        streams=arguments.stream,
    )
    print(f"{arguments.model}: learns again from now on: {', '.join(streams)}")


def _format_drift_warning(profile: Profile) -> str:
    streams = ", ".join(profile.unstationary)
    return f"Drifted while the reference was learned: {streams}. Comparisons with it may raise false alarms."


def _show_profile(arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    profile = _read_profile(arguments.file)
    table = Table("stream", "kind", title=_format_model(profile), caption=profile.created)
    for head in ("values", "missing", "mean", "5 %", "median", "95 %"):
        table.add_column(head, justify="right")
    table.add_column("most frequent")
    for stream, sketch in sorted(profile.streams.items()):
        table.add_row(stream, *_format_sketch_row(sketch))
    console = Console(width=None if sys.stdout.isatty() else 160)
    # Printed by ourselves: rich would end the program with 1 where the reader of a pipe has ended.
    with console.capture() as capture:
        console.print(table)
    print(capture.get(), end="")
    if profile.unstationary:
        print(_format_drift_warning(profile))
    _print_accuracy(profile)


def _format_sketch_row(sketch: StreamSketch) -> Sequence[str]:
    total = sketch.total
    missing = f"{100 * sketch.missing / total:.2g} %" if sketch.missing else ""
    if sketch.categories.total > sketch.numbers:
        shares = sketch.categories.list_top_categories(MAX_CLASSES).counts.items()
        classes = ", ".join(f"{label} {100 * count / total:.0f} %" for label, count in shares)
        return "classes", str(total), missing, "", "", "", "", classes
    if not sketch.numbers:
        return "", str(total), missing, "", "", "", "", ""
    statistics = (sketch.moments.mean, *(sketch.quantile(q) for q in (0.05, 0.5, 0.95)))
    return "numbers", str(total), missing, *(f"{statistic:.4g}" for statistic in statistics), ""


def _embed_reference(arguments: argparse.Namespace) -> None:
    profile = _read_profile(arguments.file)
    _write_embedded_model(arguments.model, profile, arguments.output)
    print(f"{arguments.output}: carries the profile of {_format_model(profile)}")


def _format_model(profile: Profile) -> str:
    return f"{profile.model} {profile.version}".strip()


def _read_profile(path: Path) -> Profile:
    from otel_mlmon.reference.embedding import find_embedded_profile, read_model_metadata
    from otel_mlmon.reference.profile import Profile

    if path.suffix.lower() != ".onnx":
        return Profile.read_file(path)
    try:
        profile = find_embedded_profile(read_model_metadata(_read_file_bytes(path)))
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}") from error
    if profile is None:
        raise ProfileError(f"{path}: carries no reference profile (no {REFERENCE_METADATA_KEY} in its metadata)")
    return profile
