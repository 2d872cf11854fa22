"""Registries of parts that can be added from outside: built-in ones by name, and those that installed packages offer.

A part is named once, in the table of its registry or in an entry point of a package:

    [project.entry-points."otel_mlmon.notifiers"]
    pager = "my_package.pager:PAGER"

It is imported when it is first asked for, so that an unused part costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from otel_mlmon.errors import ConfigurationError

T = TypeVar("T")


class PluginRegistry(Generic[T]):
    """Finds plug-ins of one kind by name: the built-in ones, and those that installed packages offer.

    Args:
        group: The group of entry points that packages add parts by, such as `otel_mlmon.notifiers`.
        builtin: Where each built-in part is, as `module:attribute`, by name. Its name cannot be taken by a package.
    """

    def __init__(self, group: str, builtin: Mapping[str, str]) -> None:
        self.group = group
        self._builtin = dict(builtin)
        self._parts: dict[str, T] = {}
        self._entry_points: dict[str, EntryPoint] | None = None

    def list_names(self) -> tuple[str, ...]:
        """Lists the names of all plug-ins: the built-in ones in their own order, then those of packages by name."""
        return (*self._builtin, *sorted(self._find_entry_points()))

    def load_plugin(self, name: str) -> T:
        """Returns the plug-in of a name, which is imported at its first use.

        Raises:
            ConfigurationError: No part has that name, or the package that offers it cannot be imported.
        """
        if name not in self._parts:
            self._parts[name] = self._import_plugin(name)
        return self._parts[name]

    def load_all_plugins(self) -> dict[str, T]:
        """Returns every plug-in by name, in the order of `list_names`.

        Raises:
            ConfigurationError: A package that offers one cannot be imported.
        """
        return {name: self.load_plugin(name) for name in self.list_names()}

    def _find_entry_points(self) -> dict[str, EntryPoint]:
        if self._entry_points is None:
            points = entry_points(group=self.group)
            self._entry_points = {point.name: point for point in points if point.name not in self._builtin}
        return self._entry_points

    def _import_plugin(self, name: str) -> Any:
        if name in self._builtin:
            module, _, attribute = self._builtin[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        point = self._find_entry_points().get(name)
        if point is None:
            raise ConfigurationError(f"{name!r} is not one of {', '.join(self.list_names())} ({self.group})")
        try:
            return point.load()
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(f"{name!r} of {point.value} ({self.group}) cannot be imported: {error}") from error
