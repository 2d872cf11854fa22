"""Identifies a model: its name, its version and the names of its classes."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Final

from otel_mlmon import semconv
from otel_mlmon.instrumentation.runtime.call import UNKNOWN_VERSION, SessionInfo
from otel_mlmon.types import ModelKey

_NAME_KEYS: Final = ("model_name", "name")
_VERSION_KEYS: Final = ("model_version", "version")
_LABEL_KEYS: Final = ("names", "classes", "labels", "class_names", "id2label", "character")
_EXPORTER_NAMES: Final = re.compile(
    r"|main(_graph)?|torch[-_]jit([-_]export)?|graph|model|onnx[-_]?graph|tf2onnx.*|\w*[0-9a-f]{32}\w*",
    re.IGNORECASE,
)
"""Names of graphs that exporters write for every model."""

MAX_TEXT: Final = 128
MAX_NAMES_CHARACTERS: Final = 1_000_000
"""The largest length of metadata that is parsed as class names."""


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Identifies one model as it runs, by the attributes that every signal carries."""

    name: str
    version: str
    """Empty if unknown."""
    provider: str
    """The execution provider; empty if the runtime has none."""
    runtime_version: str
    """Empty if unknown."""
    runtime_name: str = semconv.RUNTIME_ONNXRUNTIME

    @cached_property
    def key(self) -> ModelKey:
        """The name and version by which metrics are aggregated."""
        return ModelKey(self.name, self.version)

    @cached_property
    def runtime_attributes(self) -> Mapping[str, str]:
        """The attributes of spans and events that name the runtime, as far as they are known."""
        attributes = {
            semconv.RUNTIME_NAME: self.runtime_name,
            semconv.RUNTIME_VERSION: self.runtime_version,
            semconv.EXECUTION_PROVIDER: self.provider,
        }
        return {name: value for name, value in attributes.items() if value}


def identify(session: SessionInfo, *, version: str = "") -> ModelIdentity:
    """Identifies the model of a session.

    Args:
        session: The session.
        version: The version in the model's `ModelOptions`, which one that its calls report comes before; empty if none.
    """
    return ModelIdentity(
        name=model_name(session),
        version=session.model_version.strip()[:MAX_TEXT] or version or _version(session),
        provider=session.provider,
        runtime_name=session.runtime_name,
        runtime_version=session.runtime_version,
    )


def model_name(session: SessionInfo) -> str:
    """Finds the name of a model, of 1 to 128 characters.

    The first of: the application's name, the metadata, the file's stem, the graph's name unless exporters write it for
    every model, the digest.
    """
    graph = session.graph_name.strip()
    name = (
        session.model_name.strip()
        or _metadata_value(session, _NAME_KEYS)
        or stem(session.path)
        or ("" if _EXPORTER_NAMES.fullmatch(graph) else graph)
    )
    return name[:MAX_TEXT] or f"model-{session.digest[:12] or 'unknown'}"


def stem(path: str) -> str:
    """Returns the file's name without directories and suffix: a path never leaves the process."""
    return PurePath(path.replace("\\", "/")).stem


def _version(session: SessionInfo) -> str:
    version = _metadata_value(session, _VERSION_KEYS)[:MAX_TEXT]
    return version or ("" if session.version == UNKNOWN_VERSION else str(session.version))


def _metadata_value(session: SessionInfo, keys: Sequence[str]) -> str:
    values = (session.metadata.get(key, "").strip() for key in keys)
    return next((value for value in values if value), "")


def class_names(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Reads class names from a model's metadata, in the order of the scores; empty if there are none.

    A list or a mapping by index, JSON or Python; else text of several lines, one a name; else separated by commas.
    """
    for key in _LABEL_KEYS:
        text = metadata.get(key, "")
        if not text or len(text) > MAX_NAMES_CHARACTERS:
            continue
        names = _names_of(_parse_literal(text)) or _split_names(text)
        if names:
            return names
    return ()


def reference_words(metadata: Mapping[str, str]) -> tuple[Sequence[str], Mapping[str, Sequence[str]]]:
    """Reads the labels, and the categories by feature, that the reference profile in a model's metadata names.

    A profile that cannot be read names none: that is the processor's to report.
    """
    from otel_mlmon.errors import ProfileError
    from otel_mlmon.reference.embedding import find_profile

    try:
        profile = find_profile(metadata)
    except ProfileError:
        profile = None
    words = {name: list(sketch.categories.counts) for name, sketch in (profile.streams if profile else {}).items()}
    prefix = semconv.STREAM_INPUT_PREFIX
    labels = [label for name, labels in words.items() if name.startswith(semconv.STREAM_LABEL) for label in labels]
    return labels, {name.removeprefix(prefix): texts for name, texts in words.items() if name.startswith(prefix)}


def _split_names(text: str) -> tuple[str, ...]:
    if text.lstrip()[:1] in {"{", "[", "("}:  # a literal that could not be parsed
        return ()
    lines = text.removesuffix("\n").split("\n")
    names = (
        [line.removesuffix("\r") for line in lines] if len(lines) > 1 else [part.strip() for part in text.split(",")]
    )
    return tuple(name[:MAX_TEXT] for name in names) if len(names) > 1 and all(names) else ()


def _parse_literal(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _names_of(value: object) -> tuple[str, ...]:
    if isinstance(value, dict):
        try:
            by_index = {int(key): name for key, name in value.items()}
        except (TypeError, ValueError):
            return ()
        if sorted(by_index) != list(range(len(by_index))):
            return ()
        value = [by_index[index] for index in range(len(by_index))]
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, (str, int)) for name in value):
        return ()
    return tuple(str(name)[:MAX_TEXT] for name in value)
