"""Finds out the name and version of a model, and the names of its classes."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
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

_WORD_BOUNDARY: Final = re.compile(r"[-_.\s()]+")
_SILENT_WORDS: Final = frozenset({
    "model", "models", "best", "last", "latest", "final", "export", "exported", "onnx", "ort", "net", "network",
    "graph", "weights", "checkpoint", "checkpoints", "ckpt", "saved", "trained", "training", "train",
    "inference", "infer", "predict", "prediction", "production", "prod", "my", "the", "new", "old", "output",
    "out", "result", "pytorch", "torch", "tf", "tensorflow", "keras", "sklearn", "pipeline", "quantized",
    "quantised", "quant", "optimized", "optimised", "opt", "simplified", "sim", "int8", "uint8", "fp16", "fp32",
    "float16", "float32", "q4", "q8", "dynamic", "static", "cpu", "gpu", "cuda", "opset", "file", "data",
    "artifact", "artifacts", "app", "src", "lib", "bin", "tmp", "temp", "home", "root", "users", "usr", "var",
    "mnt", "srv", "code", "repo", "workspace", "work", "build", "dist", "run", "runs", "exp", "experiment",
    "snapshots", "blobs", "hub", "cache", "versions", "version", "resources", "assets", "package", "packages",
    "site", "dev", "main", "test", "tests",
})  # fmt: skip
"""Words that say nothing of what a model is for, of which names of files and folders consist."""

_SILENT_WORD: Final = re.compile(r"v?\d+|[0-9a-f]{8,}|opset\d+|tmp\w{6,}|epoch\d*|step\d*|copy")
"""Numbers, hashes, and folders that are made for one run."""

MAX_FOLDERS: Final = 4
"""Folders above a file that may name its model."""

DIGEST_CHARACTERS: Final = 12
"""Characters of the digest in a name or version."""

MAX_TEXT: Final = 128
MAX_NAMES_CHARACTERS: Final = 1_000_000
"""The largest length of metadata that is parsed as class names."""

_PYTHON_LITERAL: Final = re.compile(r"""\s*(?:[\[{(]|[uU]?['"])""")
"""How a Python list, tuple or mapping of texts begins. Parsing a million characters of others takes seconds, in which
no thread of the host runs."""


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Identifies a running model by name, version and runtime, which every signal carries as attributes."""

    name: str
    version: str
    """Empty if unknown."""
    provider: str
    """The execution provider; empty if the runtime has none."""
    runtime_version: str
    """Empty if unknown."""
    runtime_name: str = semconv.RUNTIME_ONNXRUNTIME

    @cached_property
    def model_key(self) -> ModelKey:
        """The name and version of the model, by which metrics are aggregated."""
        return ModelKey(self.name, self.version)

    @cached_property
    def runtime_attributes(self) -> Mapping[str, str]:
        """The attributes of spans and events that say which runtime executes the model."""
        attributes = {
            semconv.RUNTIME_NAME: self.runtime_name,
            semconv.RUNTIME_VERSION: self.runtime_version,
            semconv.EXECUTION_PROVIDER: self.provider,
        }
        return {name: value for name, value in attributes.items() if value}


def identify_model(
    session: SessionInfo,
    *,
    version: str = "",
    may_read: bool = True,
    separate: Callable[[ModelKey, str], str] = lambda model, _: model.version,
) -> ModelIdentity:
    """Returns name and version of the model in a session, from the developer's options, its metadata and its file.

    Args:
        session: The session.
        version: The version in the model's `ModelOptions`, which one that its calls report comes before; empty if none.
        may_read: Whether the model's file may be read, for its digest; False on the host's thread.
        separate: Returns the version of a model, from that in its file and the digest of that: another content under
            the same version is another version.
    """
    name = find_model_name(session, may_read=may_read)
    declared = session.model_version.strip()[:MAX_TEXT] or version
    return ModelIdentity(
        name=name,
        version=declared
        or separate(
            ModelKey(name, _find_model_version(session, may_read=may_read)),
            _find_model_digest(session, may_read=may_read),
        ),
        provider=session.provider,
        runtime_name=session.runtime_name,
        runtime_version=session.runtime_version,
    )


def find_model_name(session: SessionInfo, *, may_read: bool = True) -> str:
    """Returns the name of a session's model, 1 to 128 characters, from its metadata or its file.

    The first of: the application's name, the metadata, the file's name. Where that is one like `model.onnx`, which
    many models have, the folder before it: `churn-model` of `churn/model.onnx`. Of bytes, or where folders say nothing
    either, the graph's name unless exporters write it for every model, and last the digest.

    Args:
        session: The session.
        may_read: Whether the model's file may be read, for its digest; False on the host's thread.
    """
    graph = session.graph_name.strip()
    name = (
        session.model_name.strip()
        or _find_metadata_value(session, _NAME_KEYS)
        or name_model_by_file(session.path)
        or ("" if _EXPORTER_NAMES.fullmatch(graph) else graph)
        or _find_nearest_folder_name(session.path)
    )
    return name[:MAX_TEXT] or f"model-{_find_model_digest(session, may_read=may_read)[:DIGEST_CHARACTERS] or 'unknown'}"


def read_file_stem(path: str) -> str:
    """Returns a file's name without its directories and suffix, since a path never leaves the process."""
    return PurePath(path.replace("\\", "/")).stem


def name_model_by_file(path: str) -> str:
    """Returns a model's name made from its file or folder; empty if these are as common as `model` or `best`."""
    name = read_file_stem(path)
    if not is_common_file_name(name):
        return name
    parents = PurePath(path.replace("\\", "/")).parents
    for folder in list(parents)[:MAX_FOLDERS]:
        # What lies in `home` is the name of a person.
        if not is_common_file_name(folder.name) and folder.parent.name.lower() not in {"home", "users"}:
            return f"{folder.name.rpartition('--')[2]}-{name}"
    return ""


def is_common_file_name(name: str) -> bool:
    """Returns whether a file or folder name, such as `model`, `best` or `1`, is too common to identify a model."""
    words = [word for word in _WORD_BOUNDARY.split(name.lower()) if word]
    return all(word in _SILENT_WORDS or _SILENT_WORD.fullmatch(word) for word in words)


def _find_nearest_folder_name(path: str) -> str:
    """Returns the name of the folder that a model's file is in, unless that was made for one run."""
    folder = PurePath(path.replace("\\", "/")).parent.name
    return f"{folder}-{read_file_stem(path)}" if folder and not _SILENT_WORD.fullmatch(folder.lower()) else ""


def _find_model_version(session: SessionInfo, *, may_read: bool) -> str:
    version = _find_metadata_value(session, _VERSION_KEYS)[:MAX_TEXT]
    if version:
        return version
    if 0 < session.version < UNKNOWN_VERSION:
        return str(session.version)
    return _find_model_digest(session, may_read=may_read)[:DIGEST_CHARACTERS]


def _find_model_digest(session: SessionInfo, *, may_read: bool) -> str:
    graph = session.graph() if may_read else session.graph.known
    return graph.digest if graph is not None else ""


def _find_metadata_value(session: SessionInfo, keys: Sequence[str]) -> str:
    values = (session.metadata.get(key, "").strip() for key in keys)
    return next((value for value in values if value), "")


def read_class_names(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the class names in a model's metadata, in the order of its scores; empty if there are none.

    A list or a mapping by index, JSON or Python; else text of several lines, one a name; else separated by commas.
    """
    for key in _LABEL_KEYS:
        text = metadata.get(key, "")
        if not text or len(text) > MAX_NAMES_CHARACTERS:
            continue
        names = _read_name_list(_parse_literal(text)) or _split_class_names(text)
        if names:
            return names
    return ()


def read_reference_vocabulary(metadata: Mapping[str, str]) -> tuple[Sequence[str], Mapping[str, Sequence[str]]]:
    """Returns the labels, and the categories by feature, of the reference profile in a model's metadata.

    A profile that cannot be read names none: that is the processor's to report.
    """
    from otel_mlmon.errors import ProfileError
    from otel_mlmon.reference.embedding import find_embedded_profile

    try:
        profile = find_embedded_profile(metadata)
    except ProfileError:
        profile = None
    words = {name: list(sketch.categories.counts) for name, sketch in (profile.streams if profile else {}).items()}
    prefix = semconv.STREAM_INPUT_PREFIX
    labels = [label for name, labels in words.items() if name.startswith(semconv.STREAM_LABEL) for label in labels]
    return labels, {name.removeprefix(prefix): texts for name, texts in words.items() if name.startswith(prefix)}


def _split_class_names(text: str) -> tuple[str, ...]:
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
    if not _PYTHON_LITERAL.match(text):
        return None
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _read_name_list(value: object) -> tuple[str, ...]:
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
