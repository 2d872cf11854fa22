"""Options that code, environment and documentation share: each is one field of a dataclass, made by `declare_option`.

An argument wins over the environment variable, the variable over the default. A wrong argument raises, since its author
is there to read it. A wrong environment variable logs a warning and counts as unset, and an empty one is unset
(OpenTelemetry specification, configuration/common.md).
"""

from __future__ import annotations

import difflib
import logging
import numbers
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

from otel_mlmon.errors import ConfigurationError

T = TypeVar("T")

Origin = Literal["argument", "environment", "default"]

PREFIX: Final = "OTEL_MLMON_"
"""How every environment variable of an option begins."""

PROCESSOR_VARIABLES: Final = frozenset(
    f"{PREFIX}{name}" for name in ("ADMIN_TOKEN", "CA", "CERT", "INGEST_TOKEN", "KEY", "READ_TOKEN")
)
"""Variables with this beginning that the processor and its commands read, and that are no options."""

DAY_S: Final = 86_400
"""Seconds beyond which an interval is a mistake; threads cannot wait for every number."""

_METADATA_KEY: Final = "option"

_LOG: Final = logging.getLogger("otel_mlmon")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option(Generic[T]):
    """Describes one option: its name, default, check and documentation, for code, environment and docs alike."""

    name: str
    """Lower snake case, with its unit as the last word if it has one."""
    annotation: Any
    """The type of its values."""
    default: T
    doc: str
    check: Callable[[T], str | None]
    """Returns the fault of a value, as words that follow the name; None if there is none."""
    accepts: Callable[[object], bool]
    """Whether an argument that is not of the default's type is of a type that the option takes."""
    is_secret: bool = False
    """Whether its value is never shown."""

    @property
    def environment_variable(self) -> str:
        """The name of the environment variable that sets this option."""
        return f"{PREFIX}{self.name.upper()}"

    def parse_variable(self, text: str) -> Any:
        """Parses the text of the option's environment variable; raises ValueError if it is of another type."""
        kind: Any = type(self.default)
        if get_origin(self.annotation) is Literal:
            return next((value for value in get_args(self.annotation) if value == text.lower()), text)
        return parse_bool(text) if kind is bool else kind(text)


def declare_option(
    default: T,
    *,
    doc: str,
    check: Callable[[Any], str | None] = lambda _: None,
    accepts: Callable[[object], bool] = lambda _: False,
    is_secret: bool = False,
) -> T:
    """Declares a field of a dataclass as an option that arguments and an environment variable can set.

    Args:
        default: Its value where nobody sets it. Its type, one of str, bool, int and float, is that of the environment
            variable; an argument of another type is refused unless `accepts` says otherwise.
        doc: One sentence for the documentation.
        check: Returns the fault of a value, as words that follow the name; None if there is none.
        accepts: Whether an argument of another type than the default's is allowed.
        is_secret: Whether its value is never shown.
    """
    row = {"doc": doc, "check": check, "accepts": accepts, "is_secret": is_secret}
    default_field: T = field(default=default, repr=not is_secret, metadata={_METADATA_KEY: row})
    return default_field


def list_options(settings_type: Any) -> tuple[Option[Any], ...]:
    """Lists the options that a dataclass of settings declares, in their order."""
    annotations = get_type_hints(settings_type)
    return tuple(
        Option(
            name=entry.name, annotation=annotations[entry.name], default=entry.default, **entry.metadata[_METADATA_KEY]
        )
        for entry in fields(settings_type)
        if _METADATA_KEY in entry.metadata
    )


def resolve_option(
    option: Option[T], *, arguments: Mapping[str, object], environ: Mapping[str, str]
) -> tuple[T | object, Origin]:
    """Returns the value of an option, and whether an argument, the environment or the default decided it.

    Args:
        option: The option.
        arguments: What the caller passed, by name; other names are ignored.
        environ: The environment.

    Raises:
        ConfigurationError: The argument is of another type, or `option.check` refuses it.
    """
    if option.name in arguments:
        argument = arguments[option.name]
        fault = _find_argument_fault(option, argument)
        if fault is not None:
            raise ConfigurationError(f"{option.name} {fault}, got {argument!r}.")
        return _convert_to_type(argument, option.default), "argument"
    text = environ.get(option.environment_variable, "").strip()
    if text:
        try:
            value = option.parse_variable(text)
            fault = option.check(value)
        except ValueError:
            value, fault = text, _describe_type_fault(option)
        if fault is None:
            return value, "environment"
        _LOG.warning("%s is ignored: it %s, got %r.", option.environment_variable, fault, value)
    return option.default, "default"


def warn_of_unknown_variables(options: Iterable[Option[Any]], environ: Mapping[str, str]) -> None:
    """Logs a warning for each environment variable `OTEL_MLMON_…` that sets no option, with the nearest one."""
    variables = [option.environment_variable for option in options]
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and name not in (*variables, *PROCESSOR_VARIABLES):
            _LOG.warning("%s is ignored: there is no such option.%s", name, suggest_name(name.upper(), variables))


def suggest_name(name: str, names: Iterable[str]) -> str:
    """Returns ` Did you mean NAME?` with the most similar of the valid names; empty if none is similar."""
    nearest = difflib.get_close_matches(name, list(names), n=1)
    return f" Did you mean {nearest[0]}?" if nearest else ""


def is_real_number(value: object) -> bool:
    """Returns whether a Python object is a real number of Python or numpy, and not a boolean."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _find_argument_fault(option: Option[Any], argument: Any) -> str | None:
    default = option.default
    if isinstance(default, bool):
        is_accepted = isinstance(argument, bool) or _is_numpy_bool(argument)
    elif isinstance(default, float):
        is_accepted = is_real_number(argument)
    elif isinstance(default, int):
        is_accepted = isinstance(argument, numbers.Integral) and not isinstance(argument, bool)
    else:
        is_accepted = isinstance(argument, type(default))
    if is_accepted:
        fault: str | None = option.check(_convert_to_type(argument, default))
        return fault
    return None if option.accepts(argument) else _describe_type_fault(option)


def _convert_to_type(argument: Any, default: Any) -> Any:
    """Converts a number to the type of the option's default; leaves every other value as it is."""
    is_value = isinstance(argument, numbers.Real) or _is_numpy_bool(argument)
    return type(default)(argument) if is_value and isinstance(default, (int, float)) else argument


def _is_numpy_bool(argument: Any) -> bool:
    return type(argument).__module__ == "numpy" and type(argument).__name__ in {"bool", "bool_"}


def _describe_type_fault(option: Option[Any]) -> str:
    return f"must be of type {type(option.default).__name__}"


_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


def parse_bool(text: str) -> bool:
    """Parses `true`, `1`, `yes` or `on`, or their opposites, in upper or lower case, as a boolean."""
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"expected true or false, got {text!r}")


def check_positive(value: float) -> str | None:
    """Checks that the value of an option is above 0 and finite; returns the fault, or None."""
    return None if 0 < value < float("inf") else "must be above 0"


def check_not_negative(value: float) -> str | None:
    """Checks that the value of an option is 0 or above and finite; returns the fault, or None."""
    return None if 0 <= value < float("inf") else "must be 0 or above"


def check_duration(value: float) -> str | None:
    """Checks that the value of an option is a time above 0 and at most a day; returns the fault, or None."""
    return None if 0 < value <= DAY_S else f"must be above 0 and at most {DAY_S}"


def check_ratio(value: float) -> str | None:
    """Checks that the value of an option is within [0, 1]; returns the fault, or None."""
    return None if 0 <= value <= 1 else "must be within 0 and 1"
