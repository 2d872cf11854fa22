"""Where a setting's value comes from: argument > environment > file > default, decided in one function.

A wrong argument or file value raises, since somebody is there to read it. A wrong environment variable warns and counts
as unset, and an empty one is unset (OpenTelemetry specification, configuration/common.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

from otel_mlmon.errors import ConfigurationError

T = TypeVar("T")
Origin = Literal["argument", "environment", "file", "default"]

_LOG = logging.getLogger("otel_mlmon")


class Unset:
    """The type of `UNSET`: nothing was given, where None would mean something."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Option(Generic[T]):
    """One setting: a row of the table that code, documentation and `otel-mlmon settings` read."""

    name: str
    """Lower snake case, with its unit as the last word if it has one."""
    default: T
    doc: str
    parse: Callable[[str], T]
    """Reads the text of an environment variable; raises ValueError with what it expected."""
    check: Callable[[T], str | None] = lambda _: None
    """What is wrong with a value, as words that follow the name; None if nothing is."""
    environment: str | None = None
    """The variable, `OTEL_MLMON_<NAME>` if not said."""

    @property
    def variable(self) -> str:
        """The environment variable that sets this option."""
        return self.environment or f"OTEL_MLMON_{self.name.upper()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved(Generic[T]):
    """A value and where it came from."""

    value: T
    origin: Origin


def resolve(
    option: Option[T],
    *,
    argument: T | Unset = UNSET,
    environ: Mapping[str, str],
    file: T | Unset = UNSET,
) -> Resolved[T]:
    """The value of `option`, and which source won.

    Raises:
        ConfigurationError: The argument or the file's value is refused by `option.check`.
    """
    if not isinstance(argument, Unset):
        return Resolved(value=_checked(option, argument, option.name), origin="argument")
    text = environ.get(option.variable, "").strip()
    if text:
        try:
            return Resolved(value=_checked(option, option.parse(text), option.variable), origin="environment")
        except ValueError as error:
            _LOG.warning("%s is ignored: %s", option.variable, error)
    if not isinstance(file, Unset):
        return Resolved(value=_checked(option, file, option.name), origin="file")
    return Resolved(value=option.default, origin="default")


def _checked(option: Option[T], value: T, said_as: str) -> T:
    fault = option.check(value)
    if fault is not None:
        raise ConfigurationError(f"{said_as} {fault}, got {value!r}.")
    return value


_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


def parse_bool(text: str) -> bool:
    """Read `true` or `false` in any case; `1`, `yes`, `on` and their opposites too."""
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"expected true or false, got {text!r}")


def positive(value: float) -> str | None:
    """A check: above zero and finite."""
    return None if 0 < value < float("inf") else "must be above 0"


def not_negative(value: float) -> str | None:
    """A check: zero or above, and finite."""
    return None if 0 <= value < float("inf") else "must be 0 or above"


def ratio(value: float) -> str | None:
    """A check: within [0, 1]."""
    return None if 0 <= value <= 1 else "must be within 0 and 1"
