"""Reads from a model's file, or its bytes, how its outputs are computed, and a digest of its content.

Both are bounded, together by 10 MB and 20 ms. A file is never mapped into memory: one that is truncated meanwhile would
end the process.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeAlias

from otel_mlmon.instrumentation.runtime.call import FileStamp, SessionInfo, read_file_stamp
from otel_mlmon.instrumentation.runtime.model_graph import LazyModelGraph, ModelGraph
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.model import list_external_files, read_model_parts
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.outputs import trace_outputs
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.wire import ModelContent, ModelFileError

MAX_GRAPH_BYTES: Final = 6 << 20
"""Bytes read to walk over the nodes of a larger file."""

MAX_WHOLE_BYTES: Final = 8 << 20
"""Content up to so many bytes is read at once, and hashed completely: 6 ms."""

SAMPLED_BYTES: Final = 2 << 20
BLOCK_BYTES: Final = 1 << 16
"""Larger content is hashed by its size, and by so many bytes of it, in blocks at equal distances."""

MAX_EXTERNAL_FILES: Final = 15
"""Files of weights beside a model that its digest covers."""

ReadAt: TypeAlias = "Callable[[int, int], bytes]"
"""Reads so many bytes from a position on, fewer at the end."""


def read_model_bytes(content: bytes, *, names: Collection[str]) -> ModelGraph:
    """Reads how the outputs of a model that was loaded from bytes are computed.

    Args:
        content: The model.
        names: Names of the session's outputs; content with others is another model.
    """
    return _read_model_graph(lambda start, size: content[start : start + size], len(content), folder=None, names=names)


def read_model_file(path: str, *, stamp: FileStamp | None, names: Collection[str]) -> ModelGraph:
    """Reads from a model's file how its outputs are computed, and computes the file's digest.

    Args:
        path: The file.
        stamp: The stamp of the file when it was loaded: one that changed since is another model. None if unknown.
        names: Names of the session's outputs; a file with others is another model.
    """
    try:
        with Path(path).open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if stamp is not None and (status.st_size, status.st_mtime_ns) != stamp:
                return ModelGraph(state="missing")
            graph = _read_model_graph(
                functools.partial(_read_file_range, file), status.st_size, folder=Path(path).parent, names=names
            )
    except (OSError, ValueError):
        return ModelGraph(state="missing")
    return graph if stamp in {None, read_file_stamp(path)} else ModelGraph(state="missing")


def describe_model_file(path: str) -> SessionInfo:
    """Describes the model in a file as a session that runs it would be described, without running it.

    Raises:
        OSError: The file cannot be opened.
    """
    graph_name, version, metadata = "", 0, {}
    with Path(path).open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            parts = read_model_parts(
                ModelContent(functools.partial(_read_file_range, file), size=size, max_bytes=MAX_GRAPH_BYTES)
            )
            graph_name, version, metadata = parts.graph_name, parts.version, dict(parts.metadata)
        except ModelFileError:
            pass
    return SessionInfo(
        model_name="",
        path=os.path.abspath(path),  # noqa: PTH100 - as a session has it, without links resolved
        graph_name=graph_name,
        metadata=metadata,
        provider="",
        runtime_version="",
        version=version,
        graph=LazyModelGraph(functools.partial(read_model_file, path, stamp=None, names=())),
    )


def compute_model_digest(read_at: ReadAt, size: int) -> str:
    """Computes a digest of a model's content: of all of it up to 8 MiB, else of 32 sampled blocks of 64 KiB.

    Returns:
        SHA-256, in hexadecimal.
    """
    if size <= MAX_WHOLE_BYTES:
        return hashlib.sha256(read_at(0, size)).hexdigest()
    return _compute_sampled_digest(read_at, size, SAMPLED_BYTES)


def _compute_sampled_digest(read_at: ReadAt, size: int, sampled_bytes: int) -> str:
    if size <= sampled_bytes:
        return hashlib.sha256(read_at(0, size)).hexdigest()
    digest = hashlib.sha256(b"%d" % size)
    last = max(1, sampled_bytes // BLOCK_BYTES - 1)
    for block in range(last + 1):
        digest.update(read_at((size - BLOCK_BYTES) * block // last, BLOCK_BYTES))
    return digest.hexdigest()


def _read_model_graph(read_at: ReadAt, size: int, *, folder: Path | None, names: Collection[str]) -> ModelGraph:
    if size <= MAX_WHOLE_BYTES:
        data = read_at(0, size)
        read_at = lambda start, length: data[start : start + length]  # noqa: E731
    content = ModelContent(
        read_at, size=size, max_bytes=MAX_WHOLE_BYTES if size <= MAX_WHOLE_BYTES else MAX_GRAPH_BYTES
    )
    external: list[str] = []
    try:
        model = read_model_parts(content)
        external = list_external_files(model.graph)[:MAX_EXTERNAL_FILES] if folder is not None else []
        outputs = trace_outputs(model, content)
        is_same = set(names) <= set(outputs)
        graph = ModelGraph(state="read", outputs=outputs, producer=model.producer)
        graph = graph if is_same else ModelGraph(state="missing")
    except ModelFileError as error:
        graph = ModelGraph(state=error.state)
    digest = compute_model_digest(read_at, size)
    for name in external:
        weights = _compute_external_digest(folder, name, SAMPLED_BYTES // len(external))
        digest = hashlib.sha256((digest + weights).encode()).hexdigest()
    is_complete = size <= MAX_WHOLE_BYTES and not external
    return dataclasses.replace(graph, digest=digest, is_digest_complete=is_complete)


def _compute_external_digest(folder: Path | None, name: str, sampled_bytes: int) -> str:
    """Computes a digest of a file with weights beside the model; empty if it cannot be read."""
    parts = PurePosixPath(name).parts
    if folder is None or ".." in parts or PurePosixPath(name).is_absolute():
        return ""
    try:
        with folder.joinpath(*parts).open("rb", buffering=0) as file:
            return _compute_sampled_digest(
                functools.partial(_read_file_range, file), os.fstat(file.fileno()).st_size, sampled_bytes
            )
    except (OSError, ValueError):
        return ""


def _read_file_range(file: Any, start: int, size: int) -> bytes:
    file.seek(start)
    parts = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
