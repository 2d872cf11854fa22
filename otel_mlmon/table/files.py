"""The files of a table: one file, all of a folder, or those that match a pattern, here or in an object store.

Files are in the order of their names. `day=2026-01-31` in the path of a file of a folder is a column of it, as Hive and
Spark write them; what begins with `_` or `.` is no data. Object stores are read through `fsspec`, if it is installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, Literal, TypeAlias

from otel_mlmon.errors import DataError, DependencyMissingError

FileFormat: TypeAlias = Literal["csv", "parquet", "json"]

SUFFIXES: Final[Mapping[str, FileFormat]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
}
COMPRESSIONS: Final[Mapping[str, str]] = {".gz": "gzip", ".zst": "zstd"}
"""The endings of compressed text, and what DuckDB and Arrow call the compression."""

_ADVICE: Final[Mapping[str, str]] = {
    **dict.fromkeys((".xls", ".xlsx", ".xlsm", ".ods"), "a spreadsheet: save it as CSV"),
    **dict.fromkeys((".zip", ".bz2", ".xz", ".7z", ".tar", ".tgz"), "packed: unpack it, or pack it as .gz or .zst"),
    **dict.fromkeys((".feather", ".arrow", ".orc", ".avro", ".pkl", ".h5"), "save it as Parquet"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile:
    """Describes one file of a table: its path, format, compression, and columns that its path names."""

    path: str
    format: FileFormat
    compression: str = "none"
    partitions: Mapping[str, str] = field(default_factory=dict)
    """Columns that the path says, with their only value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFileSet:
    """The files that together hold one table, at least one, all of one format."""

    files: tuple[TableFile, ...]
    filesystem: Any = None
    """The file system of `fsspec`; None for that of this machine."""

    def open_file(self, path: str) -> IO[bytes]:
        """Opens one of the table's files for reading, on this machine or in the object store."""
        if self.filesystem is None:
            return Path(path).open("rb")
        stream: IO[bytes] = self.filesystem.open(path, "rb")
        return stream


def find_table_files(location: str) -> TableFileSet:
    """Finds the files of a table from the path, pattern or address that the user gave.

    Args:
        location: A file, a folder, a pattern such as `2026-*.csv.gz`, or any of them as an address such as `s3://…`.

    Raises:
        DataError: There is none, or they are of several formats or one that cannot be read.
        DependencyMissingError: It is an address, and `fsspec` or its driver is not installed.
    """
    filesystem = _open_filesystem(location) if "://" in location else None
    try:
        if filesystem is not None:
            paths, root = _list_store_files(filesystem, location)
        else:
            paths, root = _list_local_files(location)
    except OSError as error:
        raise DataError(f"{location}: {os.strerror(error.errno) if error.errno else error}") from error
    files = tuple(_describe_table_file(path, root) for path in paths)
    formats = sorted({file.format for file in files})
    if len(formats) > 1:
        raise DataError(f"{location}: holds files of several formats, {' and '.join(formats)}: name those of one")
    return TableFileSet(files=files, filesystem=filesystem)


def find_format_suffix(path: str) -> str:
    """Returns the file-name ending that tells the format, in lower case: `.csv` of `A.CSV.gz`."""
    pure = PurePosixPath(path.replace(os.sep, "/").lower())
    return PurePosixPath(pure.stem).suffix if pure.suffix in COMPRESSIONS else pure.suffix


def _list_local_files(location: str) -> tuple[list[str], str]:
    """Lists the files on this machine that a path or pattern means, and the folder they are named relative to."""
    path = Path(location)
    if path.is_dir():
        return _list_folder_files(location, list(_walk_folder(location)), lambda name: (path / name).exists()), location
    if path.exists() or path.is_symlink() or not has_magic(location):
        if not path.exists():
            path.open("rb").close()  # which raises the system's own reason
        return [location], ""
    root = str(Path(*_list_fixed_path_parts(path)))
    candidates = (match for match in glob(location, recursive=True) if Path(match).is_file())  # noqa: PTH207 - of a text
    matches = sorted(
        match for match in candidates if all(map(_is_data_file, Path(match.removeprefix(root)).parts[1:] or [match]))
    )
    if not matches:
        raise DataError(f"{location}: no file matches")
    return matches, root


def _list_fixed_path_parts(path: Path) -> Iterator[str]:
    for part in path.parts:
        if has_magic(part):
            return
        yield part


def _walk_folder(folder: str) -> Iterator[str]:
    for base, folders, names in os.walk(folder, onerror=_raise_error):
        folders[:] = sorted(name for name in folders if name[0] not in "_.")
        yield from (os.path.join(base, name) for name in sorted(names))  # noqa: PTH118 - a text, as the user wrote it


def _raise_error(error: OSError) -> None:
    raise error


def _list_folder_files(location: str, paths: list[str], has_entry: Callable[[str], bool]) -> list[str]:
    for entry, name in (("_delta_log", "Delta"), ("metadata/version-hint.text", "Iceberg"), (".hoodie", "Hudi")):
        if has_entry(entry):
            raise DataError(
                f"{location}: a table of {name}, of which some files are outdated: read it with Spark or DuckDB, "
                "and give `otel_mlmon.backtest.run` the rows"
            )
    tables = [path for path in paths if _is_data_file(path) and find_format_suffix(path) in SUFFIXES]
    if not tables:
        raise DataError(f"{location}: the folder holds no file that ends with one of {' '.join(SUFFIXES)}")
    return sorted(tables)


def _is_data_file(path: str) -> bool:
    return PurePosixPath(path.replace(os.sep, "/")).name[0] not in "_."


def _describe_table_file(path: str, root: str) -> TableFile:
    suffix = find_format_suffix(path)
    if suffix not in SUFFIXES:
        advice = _ADVICE.get(PurePosixPath(path.lower()).suffix)
        endings = " ".join(SUFFIXES)
        raise DataError(
            f"{path}: {advice or f'the file name must end with one of {endings}, or of these and .gz .zst'}"
        )
    folders = path.removeprefix(root).replace(os.sep, "/").split("/")[:-1] if root else []
    pairs = [folder.split("=", 1) for folder in folders if "=" in folder]
    return TableFile(
        path=path,
        format=SUFFIXES[suffix],
        compression=COMPRESSIONS.get(PurePosixPath(path.lower()).suffix, "none"),
        partitions={name: value for name, value in pairs if name},
    )


def _open_filesystem(location: str) -> Any:
    try:
        import fsspec

        return fsspec.filesystem(location.partition("://")[0])
    except (ImportError, ValueError) as error:
        raise DependencyMissingError(
            f"{location}: needs fsspec and its driver of this store, such as s3fs or gcsfs: {error}"
        ) from error


def _list_store_files(filesystem: Any, location: str) -> tuple[list[str], str]:
    scheme = location.partition("://")[0]
    if filesystem.isdir(location):
        names = [f"{scheme}://{name.lstrip('/')}" for name in filesystem.find(location)]
        return _list_folder_files(location, names, lambda name: bool(filesystem.exists(f"{location}/{name}"))), location
    if has_magic(location):
        names = [f"{scheme}://{name.lstrip('/')}" for name in sorted(filesystem.glob(location)) if _is_data_file(name)]
        if not names:
            raise DataError(f"{location}: no file matches")
        return names, location.partition("*")[0]
    if not filesystem.exists(location):
        raise DataError(f"{location}: No such file or directory")
    return [location], ""
