"""Finds out how a CSV file is written from its first rows, and on which line a faulty row stands.

The first record names the columns. Delimiters are a comma, a semicolon, a tab or a bar, as `sep=;` in a first line
says, or else that under which the first rows have the same number of cells. DuckDB reads the rows; a file that it
refuses is read once more, line by line, to say where and why. Source: RFC 4180.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TextIO

from otel_mlmon.errors import DataError
from otel_mlmon.table.cells import is_missing_value, is_number_text
from otel_mlmon.table.files import TableFile, TableFileSet
from otel_mlmon.table.table import TableColumn, check_column_names

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE_BYTES: Final = 1 << 20
SAMPLE_ROWS: Final = 1_000
DELIMITERS: Final = ",;\t|"
MAX_CELL_BYTES: Final = 1 << 21
ENCODINGS: Final = ("utf-8", "utf-16", "latin-1")
"""Encodings that can be read; a byte order mark goes before what the user says."""

MIXED_LINES: Final = "its lines end in different ways, some with a carriage return: save it anew"
"""The fault of a file in which DuckDB finds no rows, or loses its way among them."""

_SEPARATOR_LINE: Final = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
_AMBIGUOUS: Final = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
"""A number with a comma that may stand between thousands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvDialect:
    """Describes how a CSV file is written: its delimiter, quotes, header and types of columns."""

    encoding: str
    delimiter: str
    quote: str
    escape: str
    names: tuple[str, ...]
    """The names of the columns."""
    skipped_lines: int
    """Lines before the names."""
    columns: tuple[TableColumn, ...]
    rows: int
    """An estimate of the number of rows."""
    min_rows: int
    """Rows that are there for certain, up to `SAMPLE_ROWS`."""

    @property
    def csv_reader_options(self) -> dict[str, Any]:
        """The arguments with which Python's `csv.reader` reads the CSV file."""
        is_doubled = self.escape == self.quote
        return {
            "delimiter": self.delimiter,
            "quotechar": self.quote,
            "doublequote": is_doubled,
            "escapechar": None if is_doubled else self.escape,
            "strict": True,
        }


def detect_csv_dialect(files: TableFileSet, file: TableFile, encoding: str | None) -> CsvDialect:
    """Finds out from the beginning of a CSV file how it is written, and the names and types of its columns.

    Raises:
        DataError: There are no column names, two are equal, or the text cannot be decoded; names the line.
    """
    csv.field_size_limit(MAX_CELL_BYTES)
    with files.open_file(file.path) as raw:
        with _open_decompressed(raw, file) as stream:
            content = stream.read(SAMPLE_BYTES)
        consumed_bytes = raw.tell()
        size_bytes = raw.seek(0, io.SEEK_END)
    encoding = _find_encoding(content, encoding, file)
    text = _decode_sample(content, encoding, file, files)
    if "\0" in text:
        raise DataError(f"{file.path}:{text[: text.index(chr(0))].count(chr(10)) + 1}: holds zero bytes: no text")
    directive = _SEPARATOR_LINE.match(text)
    body = text[directive.end() :] if directive else text
    first_line = 2 if directive else 1
    # The last line of a sample may be cut off.
    sample = body if len(content) < SAMPLE_BYTES else body[: body.rfind("\n") + 1] or body
    quote = _find_quote_character(sample)
    escape = "\\" if f"\\{quote}" in sample and quote * 2 not in sample else quote
    dialect = CsvDialect(
        encoding=encoding, delimiter=directive[1] if directive else "", quote=quote, escape=escape, names=(),
        skipped_lines=first_line - 1, columns=(), rows=0, min_rows=0,
    )  # fmt: skip
    delimiter = dialect.delimiter or _find_delimiter(sample, dialect)
    records = list(islice(_read_sample_rows(sample, dialect, delimiter), SAMPLE_ROWS + 1))
    if not records:
        raise _explain_header_fault(sample, file, first_line, delimiter, dialect)
    names = tuple(records[0])
    if not any(name.strip() for name in names):
        raise DataError(f"{file.path}:{first_line}: no column names: the file holds no rows")
    rows = [record for record in records[1:] if len(record) == len(names)]
    if len(names) > 1 and not names[-1] and not any(record[-1] for record in rows):
        names = names[:-1]  # a delimiter at the end of every line
    check_column_names(names, f"{file.path}:{first_line}")
    fraction = next((name for name in names if "." in name and is_number_text(name)), None)
    if fraction is not None:
        raise DataError(f"{file.path}:{first_line}: no column names: {fraction!r} is a number")
    cells: Sequence[Sequence[str]] = list(zip(*rows, strict=True)) or [()] * len(names)
    share = size_bytes / max(consumed_bytes, 1) if len(content) == SAMPLE_BYTES else 1.0
    return CsvDialect(
        encoding=encoding,
        delimiter=delimiter,
        quote=quote,
        escape=escape,
        names=names,
        skipped_lines=first_line - 1,
        columns=tuple(_describe_csv_column(*pair, delimiter) for pair in zip(names, cells, strict=False)),
        min_rows=len(rows),
        rows=round(max(sample.count("\n") - 1, 0) * share),
    )


def find_line_of_row(files: TableFileSet, file: TableFile, dialect: CsvDialect, row: int) -> int:
    """Returns the line, from 1, on which a row, from 0, of a CSV file ends: quoted cells may hold several lines."""
    with _open_text_file(files, file, dialect) as text:
        reader = csv.reader(text, **dialect.csv_reader_options)
        width = len(next(reader))
        last = -1
        for cells in reader:
            last += bool(cells) or width == 1
            if last == row:
                break
        return dialect.skipped_lines + int(reader.line_num)


def explain_csv_fault(files: TableFileSet, file: TableFile, dialect: CsvDialect, message: str) -> DataError:
    """Returns the error that says what is wrong with a CSV file that could not be read, and on which line."""
    width = len(dialect.names)
    try:
        with _open_text_file(files, file, dialect) as text:
            reader = csv.reader(text, **dialect.csv_reader_options)
            for cells in reader:
                if (len(cells) > width and any(cells[width:])) or 0 < len(cells) < width:
                    line = dialect.skipped_lines + reader.line_num
                    return DataError(f"{file.path}:{line}: {len(cells)} cells, but the first line names {width}")
    except csv.Error as error:
        return DataError(f"{file.path}:{dialect.skipped_lines + reader.line_num}: {error}")
    except UnicodeDecodeError:
        return _explain_encoding_fault(files, file, dialect.encoding)
    except (OSError, EOFError) as error:
        return DataError(f"{file.path}: damaged, or not packed as its name says: {error}")
    if "state machine" in message:
        return DataError(f"{file.path}: {MIXED_LINES}")
    place = re.search(r"Line: (\d+)", message)
    reason = "a line is longer than 2 MB" if "line size" in message else message.split("\n")[0]
    return DataError(f"{file.path}:{place[1] if place else 1}: {reason}")


def _read_sample_rows(sample: str, dialect: CsvDialect, delimiter: str) -> Iterator[list[str]]:
    """Yields the rows of a sample of a CSV file, up to the first faulty one."""
    reader = csv.reader(io.StringIO(sample, newline=""), **{**dialect.csv_reader_options, "delimiter": delimiter})
    try:
        for number, record in enumerate(reader):
            if record or number == 0:
                yield record
    except csv.Error:
        return


def _explain_header_fault(sample: str, file: TableFile, line: int, delimiter: str, dialect: CsvDialect) -> DataError:
    reader = csv.reader(io.StringIO(sample, newline=""), **{**dialect.csv_reader_options, "delimiter": delimiter})
    try:
        next(reader, None)
    except csv.Error as error:
        return DataError(f"{file.path}:{line}: {error}")
    return DataError(f"{file.path}:{line}: no column names: the file holds no rows")


def _find_quote_character(sample: str) -> str:
    has_double = '"' in sample
    is_single = re.match(r"'[^'\n]*'[,;\t|\r\n]", sample) is not None
    return "'" if is_single and not has_double else '"'


def _find_delimiter(sample: str, dialect: CsvDialect) -> str:
    """Returns the delimiter by which most of a CSV file's first rows have as many cells as its header."""
    best, best_score = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        records = list(islice(_read_sample_rows(sample, dialect, delimiter), 50))
        width = len(records[0]) if records else 0
        if width > 1:
            share = sum(len(record) == width for record in records) / len(records)
            best, best_score = max((best, best_score), (delimiter, (share, width)), key=lambda entry: entry[1])
    return best


def _describe_csv_column(name: str, cells: Sequence[str], delimiter: str) -> TableColumn:
    """Describes a column of a CSV file by its first cells: numbers or texts, and whether commas are decimal."""
    commas = [cell.strip() for cell in cells if "," in cell]
    present = [cell for cell in cells if not is_missing_value(cell)]
    has_commas = bool(commas) and all(is_number_text(cell.replace(",", "", 1)) for cell in present)
    is_ambiguous = has_commas and all(_AMBIGUOUS.fullmatch(cell) for cell in commas)
    is_decimal = (
        has_commas and not is_ambiguous and delimiter != "," and all(is_number_text(cell, ",") for cell in present)
    )
    return TableColumn(
        name=name,
        kind="text",
        type_name="text",
        decimal="," if is_decimal else ".",
        has_points=any("." in cell and is_number_text(cell) for cell in present),
        has_ambiguous_commas=has_commas and not is_decimal,
    )


def _find_encoding(content: bytes, encoding: str | None, file: TableFile) -> str:
    if content.startswith(codecs.BOM_UTF16_BE):
        raise DataError(f"{file.path}: big-endian UTF-16 cannot be read: save it as UTF-8")
    if content.startswith(codecs.BOM_UTF16_LE):
        return "utf-16"
    return "utf-8" if content.startswith(codecs.BOM_UTF8) else encoding or "utf-8"


def _decode_sample(content: bytes, encoding: str, file: TableFile, files: TableFileSet) -> str:
    decoder = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)()
    try:
        return decoder.decode(content, final=len(content) < SAMPLE_BYTES)
    except UnicodeDecodeError as error:
        raise _explain_encoding_fault(files, file, encoding) from error


def _explain_encoding_fault(files: TableFileSet, file: TableFile, encoding: str) -> DataError:
    """Returns the error that says which line of a file is not in the text encoding it should have."""
    with files.open_file(file.path) as raw, _open_decompressed(raw, file) as stream:
        numbered = enumerate(io.BufferedReader(stream), start=1)
        line = next((number for number, content in numbered if not _has_encoding(content, encoding)), 1)
    return DataError(
        f"{file.path}:{line}: not {encoding.upper()} text; --encoding says what it is, one of {', '.join(ENCODINGS)}"
    )


def _has_encoding(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


@contextmanager
def _open_decompressed(raw: Any, file: TableFile) -> Iterator[pa.NativeFile]:
    import pyarrow as pa

    stream = pa.PythonFile(raw, mode="r")
    if file.compression != "none":
        stream = pa.CompressedInputStream(stream, file.compression)
    try:
        yield stream
    except OSError as error:
        raise DataError(f"{file.path}: damaged, or not packed as its name says: {error}") from error


@contextmanager
def _open_text_file(files: TableFileSet, file: TableFile, dialect: CsvDialect) -> Iterator[TextIO]:
    encoding = "utf-8-sig" if dialect.encoding == "utf-8" else dialect.encoding
    with files.open_file(file.path) as raw, _open_decompressed(raw, file) as stream:
        text = io.TextIOWrapper(stream, encoding=encoding, newline="")
        for _ in range(dialect.skipped_lines):
            text.readline()
        yield text
