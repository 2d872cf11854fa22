"""Reads a YAML file into plain values with the line of each, and replaces `${env:NAME}` by environment variables.

Nodes are walked by hand because a constructed mapping has lost where its keys stood, and silently keeps the
last of two equal ones. The value of an environment variable is text and never parsed as YAML: it may be `0123`.
Sources: YAML 1.1 as PyYAML reads it; `${env:NAME:-default}` and `$$` as in the OpenTelemetry Collector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import yaml

MAX_BYTES: Final = 2**20
MAX_DEPTH: Final = 32
MAX_VALUES: Final = 100_000
"""Values with those that aliases repeat: ten lines of aliases of aliases can stand for billions."""

KeyPath: TypeAlias = tuple[str | int, ...]
"""Keys and list positions from the root."""

_REFERENCE: Final = re.compile(
    r"\$\$(?=\{)|\$\{env:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<wrong>\$\{[^}]*\}?)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFault:
    """A mistake in a configuration file, with its line and key."""

    line: int
    """From 1."""
    path: KeyPath
    text: str


@dataclass(slots=True, kw_only=True)
class YamlDocument:
    """The values of a YAML configuration file, and the line that each value stands in."""

    value: Any = None
    """Mappings, lists and scalars; None for an empty file."""
    lines: dict[KeyPath, int] = field(default_factory=dict)
    """The line of each key and list item, from 1."""
    sources: dict[KeyPath, str] = field(default_factory=dict)
    """The text of each scalar as it stands in the file, before variables are replaced."""
    faults: list[ConfigFault] = field(default_factory=list)

    def find_line(self, path: KeyPath) -> int:
        """Returns the line of the configuration file that a key stands in, or the nearest section around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_document(text: str, environ: Mapping[str, str]) -> YamlDocument:
    """Reads the YAML text of a configuration file; mistakes in it are returned with the values, never raised."""
    document = YamlDocument()
    if len(text) > MAX_BYTES:
        document.faults.append(ConfigFault(line=1, path=(), text=f"is larger than {MAX_BYTES} characters"))
        return document
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is not None:
            document.value = _YamlReader(loader, environ, document).read_value(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        document.faults.append(
            ConfigFault(
                line=mark.line + 1 if mark else 1,
                path=(),
                text=f"is not YAML: {error.problem or error.context}",
            )
        )
    except RecursionError:  # of PyYAML's own parser
        document.faults.append(ConfigFault(line=1, path=(), text=f"is nested more than {MAX_DEPTH} levels deep"))
    except _YamlTooLargeError as error:
        document.value = None
        document.faults.append(ConfigFault(line=error.line, path=(), text=str(error)))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        document.faults.append(ConfigFault(line=line, path=(), text=f"is not YAML: {str(error).splitlines()[0]}"))
    return document


class _YamlTooLargeError(Exception):
    """An error: the aliases of a YAML file expand to more values than anybody configures."""

    def __init__(self, text: str, *, line: int) -> None:
        super().__init__(text)
        self.line = line


class _YamlReader:
    """Reads the nodes of a YAML file into plain values."""

    def __init__(self, loader: yaml.SafeLoader, environ: Mapping[str, str], document: YamlDocument) -> None:
        self._loader = loader
        self._environ = environ
        self._document = document
        self._open_nodes: set[int] = set()
        self._values = 0

    def read_value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        self._values += 1
        line = node.start_mark.line + 1
        if self._values > MAX_VALUES:
            raise _YamlTooLargeError(f"has more than {MAX_VALUES} values, with those that aliases repeat", line=line)
        if len(path) > MAX_DEPTH:
            raise _YamlTooLargeError(f"is nested more than {MAX_DEPTH} levels deep", line=line)
        if isinstance(node, yaml.ScalarNode):
            return self._read_scalar(node, path)
        if id(node) in self._open_nodes:
            self._add_fault(path, "contains itself")
            return None
        self._open_nodes.add(id(node))
        if isinstance(node, yaml.MappingNode):
            result: Any = self._read_mapping(node, path)
        else:
            result = [self.read_value(item, (*path, index)) for index, item in enumerate(node.value)]
        self._open_nodes.discard(id(node))
        return result

    def _read_mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in sorted({key for key in keys if keys.count(key) > 1}):
            self._add_fault((*path, key), "is written twice", line=_find_last_line(node, key))
        self._loader.flatten_mapping(node)  # `<<: *anchor`
        result: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._add_fault(path, "has a key that is not a word", line=key.start_mark.line + 1)
                continue
            # The key as written: `on` and `1` are names here, not a boolean and a number.
            value_path = (*path, key.value)
            self._document.lines[value_path] = key.start_mark.line + 1
            result[key.value] = self.read_value(value, value_path)
        return result

    def _read_scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        self._document.sources[path] = node.value
        if "${" not in node.value:
            return self._parse_constant(node, path)

        def replace(match: re.Match[str]) -> str:
            if match["wrong"]:
                self._add_fault(
                    path, f"{match['wrong']} is not understood; write ${{env:NAME}} or ${{env:NAME:-default}}"
                )
                return ""
            if not match["name"]:
                return "$"
            value = self._environ.get(match["name"]) or match["default"]
            if value is None:
                self._add_fault(path, f"the environment variable {match['name']} is not set")
                return ""
            return value

        return _REFERENCE.sub(replace, node.value)

    def _parse_constant(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        try:
            return self._loader.construct_object(node)
        except ValueError as error:  # it looks like a date or number and is none: `2026-02-31`
            self._add_fault(path, f"is not YAML: {error}; put it in quotes if it is text")
            return None

    def _add_fault(self, path: KeyPath, text: str, *, line: int | None = None) -> None:
        self._document.faults.append(
            ConfigFault(line=line if line is not None else self._document.find_line(path), path=path, text=text)
        )


def _find_last_line(node: yaml.MappingNode, key: str) -> int:
    return max(int(name.start_mark.line) + 1 for name, _ in node.value if name.value == key)
