"""Defines repositories, which keep the state of the processor between two runs as records by kind and key.

A package adds one by an entry point in the group `otel_mlmon.repositories`: a class or function that is called with the
directory of `storage.path` and returns a `Repository`; `storage.engine` in the configuration names it. The suite
`tests/contracts/test_repositories.py` says what each must do.

Values become bytes and back by MessagePack, exact in every bit. A value is a dataclass or a NamedTuple of
builtins, numpy arrays, our sketches and other such values, with annotations that say so. Its type alone decides how it
is read, so what is stored carries no code and no class names. The types of a union must be distinguishable in
MessagePack: at most one dataclass, one sequence and one array.

Source: https://github.com/msgpack/msgpack/blob/master/spec.md; https://jcristharif.com/msgspec/extending.html.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar, get_args, get_origin

import msgspec
import numpy as np

from otel_mlmon.errors import StoreError
from otel_mlmon.registry import PluginRegistry
from otel_mlmon.sketch.moments import ExactSum

T = TypeVar("T")

DAMAGED: Final = "damaged"
"""The kind of records that were set aside, by their former kind and key."""

_LOG: Final = logging.getLogger("otel_mlmon.processor")

FORMAT_VERSION: Final = 11
"""The version of all stored records together; grows with any change to them."""


class Repository(Protocol):
    """A store of records (bytes) by kind and key, whose changes become durable together at the next commit.

    Runs on: the thread that opened it, and no other.
    """

    def put(self, kind: str, records: Iterable[tuple[str, bytes]], /) -> None:
        """Adds records of one kind to the store, each a key and a value, or replaces those of the same keys.

        Raises:
            StoreError: They cannot be written; all changes since the last commit are rolled back.
        """

    def delete(self, kind: str, keys: Iterable[str], /) -> None:
        """Removes records by their keys from the store; keys without a record are ignored.

        Raises:
            StoreError: They cannot be removed.
        """

    def prune(self, kind: str, before: str, /) -> int:
        """Removes the records of a kind whose keys sort before `before`; returns the number of removed records.

        Raises:
            StoreError: They cannot be removed.
        """

    def load(self, kind: str, since: str = "", until: str | None = None, /) -> dict[str, bytes]:
        """Returns the stored records of a kind by key, in the order of their keys, from `since` to before `until`.

        Raises:
            StoreError: They cannot be read.
        """

    def on_rollback(self, undo: Callable[[], None], /) -> None:
        """Has `undo` called if the changes since the last commit are rolled back, so that they are written again."""

    def commit(self) -> None:
        """Makes all changes since the last commit durable: after it returns, a killed process loses none of them.

        Raises:
            StoreError: They cannot be made durable; all of them are rolled back.
        """

    def rollback(self) -> None:
        """Drops the changes since the last commit, and calls what `on_rollback` was given since, the last first."""

    def close(self) -> None:
        """Drops the changes since the last commit, and releases the store's directory; a second call does nothing."""


REPOSITORIES: Final[PluginRegistry[Callable[[Path], Repository]]] = PluginRegistry(
    "otel_mlmon.repositories", {"sqlite": "otel_mlmon.processor.state.sqlite:SqliteRepository"}
)


def open_repository(engine: str, directory: Path) -> Repository:
    """Opens the state store of a storage engine, such as `sqlite`, in a directory.

    Raises:
        ConfigurationError: There is no such engine.
        StoreError: The directory cannot be used, is in use, or holds state of another format or another program.
    """
    return REPOSITORIES.load_plugin(engine)(directory)


@contextmanager
def commit_or_rollback(repository: Repository) -> Iterator[None]:
    """Commits the changes that are made to a repository inside; any exception drops all of them.

    Raises:
        StoreError: The repository refused a change, or the commit.
    """
    try:
        yield
        repository.commit()
    except BaseException:
        repository.rollback()
        raise


def put_records(repository: Repository, kind: RecordKind[T], records: Iterable[tuple[str, T]]) -> None:
    """Encodes values of one kind, and puts them into a repository as records.

    Raises:
        StoreError: They cannot be written.
    """
    blobs = [(key, encode_record(value, is_compressed=kind.is_compressed)) for key, value in records]
    if blobs:
        repository.put(kind.name, sorted(blobs))


def load_records(
    repository: Repository, kind: RecordKind[T], since: str = "", until: str | None = None
) -> dict[str, T]:
    """Loads the values of one kind from a repository by key, from `since` to before `until`, in order.

    A damaged record is set aside and reported.

    Raises:
        StoreError: They cannot be read.
    """
    values: dict[str, T] = {}
    for key, blob in repository.load(kind.name, since, until).items():
        try:
            values[key] = decode_record(blob, kind.type)
        except StoreError as error:  # noqa: PERF203 - one by one is the point
            quarantine_record(repository, kind.name, key, blob, str(error))
    return values


def restore_records(repository: Repository, kind: RecordKind[T], restore: Callable[[T], None]) -> None:
    """Calls `restore` with each stored value of a kind, in the order of keys, and sets aside what it refuses.

    Args:
        repository: Where they are stored.
        kind: Their kind.
        restore: Raises one of `CONTRADICTIONS` for a value that cannot be used.

    Raises:
        StoreError: They cannot be read.
    """
    for key, value in load_records(repository, kind).items():
        try:
            restore(value)
        except CONTRADICTIONS as error:  # noqa: PERF203 - one by one is the point
            blob = encode_record(value, is_compressed=kind.is_compressed)
            quarantine_record(repository, kind.name, key, blob, f"{type(error).__name__}: {error}")


def quarantine_record(repository: Repository, kind: str, key: str, blob: bytes, reason: str) -> None:
    """Moves a stored record that cannot be used to the kind `damaged`, and logs that.

    Raises:
        StoreError: The repository refused it.
    """
    _LOG.error("A record of the stored state cannot be used and is set aside: %s %s: %s", kind, key, reason)
    repository.put(DAMAGED, [(f"{kind} {key}", blob)])
    repository.delete(kind, [key])


DTYPES: Final = ("<i8", "<i4", "<f8", "|b1", "|u1")
"""Element types of arrays that can be stored, little-endian."""

_ELEMENTS: Final = {dtype: np.dtype(dtype) for dtype in DTYPES}
_DECODERS: Final[dict[Any, msgspec.msgpack.Decoder[Any]]] = {}

CONTRADICTIONS: Final = (ArithmeticError, LookupError, ValueError)
"""Errors by which a stored value is known to contradict itself; the first where a number is beyond 64 bits."""

_COMPRESSED: Final = b"\xc1"
"""Begins a compressed record: the one byte that MessagePack never uses."""


@dataclass(frozen=True, slots=True)
class RecordKind(Generic[T]):
    """A kind of stored records: its name and the type of its values."""

    name: str
    type: type[T]
    is_compressed: bool = False
    """Whether the bytes of a value are compressed: for values that are large and written seldom."""
    check: Callable[[T], object] | None = None
    """Raises one of `CONTRADICTIONS` for a value that contradicts itself, which its type alone does not show."""

    def decode(self, blob: bytes) -> T:
        """Decodes a value from its bytes in the state store, and checks it.

        Raises:
            StoreError: The bytes are damaged, are those of a value of another type, or contradict each other.
        """
        value = decode_record(blob, self.type)
        if self.check is not None:
            try:
                self.check(value)
            except CONTRADICTIONS as error:
                raise StoreError(f"the record contradicts itself: {error}") from error
        return value


def encode_record(value: object, *, is_compressed: bool = False) -> bytes:
    """Encodes a value as bytes for the state store, of which `decode_record` with the value's type is the inverse.

    Args:
        value: A dataclass or NamedTuple value.
        is_compressed: Whether to spend time on making the bytes fewer.

    Raises:
        TypeError: A part of the value has a type that cannot be stored.
    """
    blob = _ENCODER.encode(value)
    return _COMPRESSED + zlib.compress(blob, 1) if is_compressed else blob


def decode_record(blob: bytes, kind: type[T]) -> T:
    """Decodes a value of a type from its bytes in the state store; its arrays are writable.

    Raises:
        StoreError: The bytes are damaged, or are those of a value of another type.
    """
    try:
        plain = zlib.decompress(blob[1:]) if blob[:1] == _COMPRESSED else blob
        value: T = _get_decoder(kind).decode(plain)
    except (msgspec.MsgspecError, zlib.error, UnicodeDecodeError) as error:
        raise StoreError(f"a stored {kind.__name__} is damaged: {error}") from error
    return value


def _get_decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    if kind not in _DECODERS:  # what it takes to read a type is worked out once
        _DECODERS[kind] = msgspec.msgpack.Decoder(kind, dec_hook=_restore_from_plain)
    return _DECODERS[kind]


def _convert_to_plain(value: object) -> object:
    """Converts a value of a type that MessagePack does not have to a value of a type that it has."""
    if isinstance(value, ExactSum):
        # The unit is 2^-1074: almost all of a usual sum's 1,100 bits are zeros at its end.
        shift = (value & -value).bit_length() - 1 if value else 0
        mantissa = value >> shift
        return shift, mantissa.to_bytes(mantissa.bit_length() // 8 + 1, "little", signed=True)
    if isinstance(value, np.ndarray):
        dtype = value.dtype.str
        if dtype not in DTYPES:
            value = value.astype(value.dtype.newbyteorder("<"), copy=False)
            dtype = value.dtype.str
            if dtype not in DTYPES:
                raise TypeError(f"an array of {value.dtype} cannot be stored")
        return dtype, value.shape, value.tobytes()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a value of type {type(value).__name__} cannot be stored")


_ENCODER: Final = msgspec.msgpack.Encoder(enc_hook=_convert_to_plain)


def _restore_from_plain(kind: Any, value: Any) -> object:
    if kind is ExactSum:
        shift, mantissa = value
        # The range of a float is 2^2098 units; a sum of 2^64 of them stays far below 2^4096.
        if type(shift) is not int or not 0 <= shift <= 4096:
            raise ValueError(f"a sum is shifted by {shift} bits")
        if type(mantissa) is not bytes:
            raise ValueError("the mantissa of a sum is expected as bytes")
        return ExactSum(int.from_bytes(mantissa, "little", signed=True) << shift)
    scalar = _find_element_type(kind)
    if scalar is None:
        raise TypeError(f"a value of type {kind} cannot be stored")
    dtype, shape, blob = value
    element = _ELEMENTS.get(dtype) if type(dtype) is str else None
    if element is None or element.type is not scalar:
        raise ValueError(f"an array of {dtype} where one of {np.dtype(scalar)} is expected")
    if type(blob) is not bytes:
        raise ValueError("the numbers of an array are expected as bytes")
    array = np.frombuffer(blob, element).copy()
    return array if shape == [array.size] else array.reshape(shape)


@cache
def _find_element_type(kind: Any) -> type[np.generic] | None:
    """Returns the element type of a type of arrays; None for any other type."""
    if get_origin(kind) is not np.ndarray:
        return None
    scalar: type[np.generic] = get_args(get_args(kind)[1])[0]
    return scalar
