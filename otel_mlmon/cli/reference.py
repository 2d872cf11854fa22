"""`otel-mlmon reference`: build a reference profile from data, fetch one from a processor, show one, embed one.

Exit code 0 it is done; 2 the model, the data, the processor or the profile cannot be used, with what and where.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otel_mlmon.errors import DataError, ProfileError
from otel_mlmon.semconv import REFERENCE_METADATA_KEY

if TYPE_CHECKING:
    from otel_mlmon.reference.build import Built
    from otel_mlmon.reference.data import Data
    from otel_mlmon.reference.profile import Profile
    from otel_mlmon.sketch.stream_sketch import StreamSketch

NAME: Final = "reference"
HELP: Final = (
    "build a model's reference profile from data, fetch one from a processor, show it, or put it into the model"
)

HEADER: Final = "header"
DEFAULT_ADDRESS: Final = "http://127.0.0.1:8080"
ANSWER_S: Final = 30.0
"""How long a processor may take to answer."""
MAX_CLASSES: Final = 4
"""Classes of a stream that are shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    build = actions.add_parser("build", help="run a model over data and profile what goes in and comes out")
    build.add_argument("model", type=Path, metavar="MODEL.onnx")
    build.add_argument("data", type=Path, metavar="DATA", help=".csv, .parquet, or .npz with an array an input")
    build.add_argument(
        "--labels", metavar="COLUMN|FILE", help="the right labels: accuracy can then be estimated without any"
    )
    build.add_argument("--input", default="", metavar="NAME", help="of several inputs, the one the columns are for")
    build.add_argument("--columns", type=_words, metavar="A,B,…", help="the columns to use, in the model's order")
    build.add_argument(
        "--features",
        type=_words,
        default=(),
        metavar="header|A,B,…",
        help="names of the features, as ModelOptions(features=…) of the application has them; else f0, f1, …",
    )
    build.add_argument("--categorical", type=_words, default=(), metavar="A,B,…", help="features that are categories")
    build.add_argument(
        "--output-kind", metavar="KIND", help="the kind of the output, as in ModelOptions(output_kind=…)"
    )
    build.add_argument("--name", default="", help="what the application calls the model, if it does")
    build.add_argument("--model-version", default="", metavar="VERSION", help="likewise")
    build.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: MODEL.reference.json")
    build.add_argument("--embed", type=Path, metavar="OUT.onnx", help="write the model with its profile in it")
    export = actions.add_parser("export", help="fetch what a running processor judges a model by")
    export.add_argument("model", metavar="MODEL", help="as the application calls it")
    export.add_argument(
        "--from", dest="address", default=DEFAULT_ADDRESS, metavar="URL",
        help="where the processor's web.listen is (default: %(default)s)",
    )  # fmt: skip
    export.add_argument("--model-version", metavar="VERSION", help="which one, where the processor knows several")
    export.add_argument("--partial", action="store_true", help="without the streams that still learn theirs")
    export.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: MODEL.reference.json")
    show = actions.add_parser("show", help="show a profile")
    show.add_argument("file", type=Path, metavar="FILE", help="a profile, or a model that carries one")
    embed = actions.add_parser("embed", help="put a profile into a model")
    embed.add_argument("file", type=Path, metavar="FILE")
    embed.add_argument("model", type=Path, metavar="MODEL.onnx")
    embed.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.onnx")


def run(arguments: argparse.Namespace) -> int:
    """Build, export, show or embed.

    Raises:
        DataError: The data or the model cannot be used.
        ProfileError: The profile cannot, or the processor has none to give.
        ConfigurationError: `--output-kind` is not a kind of output, `--from` no address.
        DependencyMissingError: onnxruntime or pyarrow is needed.
    """
    actions: dict[str, Callable[[argparse.Namespace], None]] = {
        "build": _build,
        "export": _export,
        "show": _show,
        "embed": _embed,
    }
    actions[arguments.action](arguments)
    return 0


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _build(arguments: argparse.Namespace) -> None:
    from otel_mlmon.instrumentation.settings import ModelOptions
    from otel_mlmon.reference.build import Model
    from otel_mlmon.reference.data import read
    from otel_mlmon.reference.feeds import arrange

    model = Model(arguments.model)
    data, truth = _labelled(read(arguments.data), arguments.labels)
    fed = arrange(model.inputs, data.only(arguments.columns) if arguments.columns else data, main=arguments.input)
    features = fed.columns if arguments.features == (HEADER,) else arguments.features
    options = ModelOptions(
        version=arguments.model_version,
        output_kind=arguments.output_kind,
        features=features,
        categorical=arguments.categorical,
    )
    with _progress(data.rows) as progress:
        built = model.profile(fed.arrays, name=arguments.name, options=options, truth=truth, progress=progress)
    written = []
    if arguments.output or not arguments.embed:
        target = arguments.output or Path(f"{arguments.model.stem}.reference.json")
        with _writing(target):
            built.profile.write(target)
        written.append(target)
    if arguments.embed:
        _write_embedded(arguments.model, built.profile, arguments.embed)
        written.append(arguments.embed)
    _tell(built, written, () if features else fed.columns)


def _labelled(data: Data, labels: str | None) -> tuple[Data, list[str | None] | None]:
    """The data without its labels, and they."""
    from otel_mlmon.reference.data import read, texts

    if labels is None:
        return data, None
    if labels in data.columns:
        return data.without(labels), texts(data, labels)
    if not Path(labels).is_file():
        raise DataError(f"--labels: {data.name} has no column {labels}, and no such file is there")
    other = read(Path(labels))
    if len(other.columns) != 1:
        raise DataError(f"--labels: {labels} has {len(other.columns)} columns; one is wanted")
    if other.rows != data.rows:
        raise DataError(f"--labels: {labels} has {other.rows} rows, {data.name} has {data.rows}")
    return data, texts(other, *other.columns)


@contextmanager
def _progress(rows: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("profiling", total=rows)
        yield lambda done: bar.update(task, completed=done)


def _write_embedded(model: Path, profile: Profile, target: Path) -> None:
    from otel_mlmon.reference.embedding import embed_profile
    from otel_mlmon.reference.profile import replace_file

    try:
        content = embed_profile(_content(model), profile)
    except ProfileError as error:
        raise ProfileError(f"{model}: {error}") from error
    with _writing(target):
        replace_file(target, content)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{target}: {error.strerror or error}") from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _tell(built: Built, written: Sequence[Path], columns: Sequence[str]) -> None:
    profile = built.profile
    print(f"{_name_of(profile)}: {built.rows} rows, {len(profile.streams)} streams: {', '.join(map(str, written))}")
    if built.left_out:
        print(f"{built.left_out} rows at the end do not fill a batch of the model and are left out.", file=sys.stderr)
    if profile.calibration is not None:
        labelled = int(profile.calibration.total.sum())
        print(f"accuracy {100 * profile.calibration.accuracy:.2f} % of {labelled} labelled rows")
    if columns:
        print(
            f"Features are called f0 ({columns[0]}) and so on, as an application that does not name them has them; "
            "--features header takes the names of the columns.",
            file=sys.stderr,
        )


def _export(arguments: argparse.Namespace) -> None:
    from otel_mlmon.reference.fetch import fetch

    fetched = fetch(
        arguments.address,
        arguments.model,
        version=arguments.model_version,
        is_partial=arguments.partial,
        timeout_s=ANSWER_S,
    )
    profile = fetched.profile
    target = arguments.output or Path(re.sub(r"[^\w.-]", "_", profile.model) + ".reference.json")
    with _writing(target):
        profile.write(target)
    print(f"{_name_of(profile)}: {len(profile.streams)} streams: {target}")
    if fetched.left_out:
        print(f"Left out. {fetched.left_out}", file=sys.stderr)
    if profile.unstationary:
        print(_moved(profile), file=sys.stderr)


def _moved(profile: Profile) -> str:
    return f"Moved while it was learned: {', '.join(profile.unstationary)}. What is judged by it may alarm early."


def _show(arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    profile = _profile_in(arguments.file)
    table = Table("stream", "kind", title=_name_of(profile), caption=profile.created)
    for head in ("values", "missing", "mean", "5 %", "median", "95 %"):
        table.add_column(head, justify="right")
    table.add_column("most frequent")
    for stream, sketch in sorted(profile.streams.items()):
        table.add_row(stream, *_row(sketch))
    console = Console(width=None if sys.stdout.isatty() else 160)
    # Printed by ourselves: rich would end the program with 1 where the reader of a pipe has enough.
    with console.capture() as shown:
        console.print(table)
    print(shown.get(), end="")
    if profile.unstationary:
        print(_moved(profile))
    if profile.calibration is not None:
        labelled = int(profile.calibration.total.sum())
        print(f"accuracy {100 * profile.calibration.accuracy:.2f} % of {labelled} labelled rows")


def _row(sketch: StreamSketch) -> Sequence[str]:
    total = sketch.total
    missing = f"{100 * sketch.missing / total:.2g} %" if sketch.missing else ""
    if sketch.categories.total > sketch.numbers:
        shares = sketch.categories.top(MAX_CLASSES).counts.items()
        words = ", ".join(f"{label} {100 * count / total:.0f} %" for label, count in shares)
        return "classes", str(total), missing, "", "", "", "", words
    if not sketch.numbers:
        return "", str(total), missing, "", "", "", "", ""
    numbers = (sketch.moments.mean, *(sketch.quantile(q) for q in (0.05, 0.5, 0.95)))
    return "numbers", str(total), missing, *(f"{number:.4g}" for number in numbers), ""


def _embed(arguments: argparse.Namespace) -> None:
    profile = _profile_in(arguments.file)
    _write_embedded(arguments.model, profile, arguments.output)
    print(f"{arguments.output}: carries the profile of {_name_of(profile)}")


def _name_of(profile: Profile) -> str:
    return f"{profile.model} {profile.version}".strip()


def _profile_in(path: Path) -> Profile:
    from otel_mlmon.reference.embedding import find_profile, read_metadata
    from otel_mlmon.reference.profile import Profile

    if path.suffix.lower() != ".onnx":
        return Profile.read(path)
    try:
        profile = find_profile(read_metadata(_content(path)))
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}") from error
    if profile is None:
        raise ProfileError(f"{path}: carries no reference profile (no {REFERENCE_METADATA_KEY} in its metadata)")
    return profile
