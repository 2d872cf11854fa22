"""From a file to a `Config`, or to the list of everything that is wrong with it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.config import document as yaml_document
from otel_mlmon.processor.config.document import Document, Fault
from otel_mlmon.processor.config.model import Config

_SECRET_KEYS: Final = frozenset({"webhook"})
"""Nothing that is written below them is told: an address may hold a token as well as a header does."""
_WORDS: Final = {
    "missing": "is needed",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be {ge:g} or above",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be {le:g} or below",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text; put it in quotes",
    "path_type": "must be a path",
    "literal_error": "must be {expected}",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
    "value_error": "{error}",
}
"""Our words for pydantic's kinds of error; its limits are in seconds, bytes and ratios."""


def load(path: Path | str | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read and check a configuration file.

    Args:
        path: The file; None is the defaults.
        environ: What `${env:NAME}` is filled in from.

    Raises:
        ConfigurationError: The file cannot be read, or is wrong; all faults at once, by line.
    """
    if path is None:
        return Config()
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: cannot be read: byte {error.start} is not UTF-8") from None
    document = yaml_document.read(text, environ)
    faults = list(document.faults)
    config = None
    if document.value is not None or not faults:
        try:
            config = Config.model_validate(document.value)
        except ValidationError as error:
            known = {fault.path for fault in faults}
            faults += [fault for fault in _faults(error, document) if fault.path not in known]
    if config is None or faults:
        # From None: the chain would print values that may be secret.
        raise ConfigurationError(*(_sentence(str(path), fault) for fault in sorted(faults, key=_place))) from None
    return config


def _place(fault: Fault) -> tuple[int, str]:
    return fault.line, _dotted(fault.path)


def _sentence(name: str, fault: Fault) -> str:
    where = f"{_dotted(fault.path)}: " if fault.path else ""
    return f"{name}:{fault.line}: {where}{fault.text}"


def _dotted(path: yaml_document.Path) -> str:
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            word = f'"{step}"' if "." in step or not step else step
            text += f".{word}" if text else word
    return text


def _faults(error: ValidationError, document: Document) -> Iterator[Fault]:
    for detail in error.errors(include_url=False, include_input=False):
        path = detail["loc"]
        yield Fault(line=document.line(path), path=path, text=_text(detail, document))


def _text(detail: ErrorDetails, document: Document) -> str:
    path = detail["loc"]
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(path[-1]), _keys(path[:-1]), n=1)
        return "is not a known key" + (f" (did you mean `{near[0]}`?)" if near else "")
    words = _WORDS.get(detail["type"])
    text = words.format(**detail.get("ctx", {})) if words else detail["msg"]
    # As written, so that what came from the environment stays there; nothing of what its key says is secret.
    written = document.written.get(path)
    if written is None or _SECRET_KEYS.intersection(map(str, path)):
        return text
    return f"{text}, got {written!r}"


def _keys(path: yaml_document.Path) -> list[str]:
    """The keys that are known at `path`."""
    here: Any = Config
    for step in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            fields = here.model_fields
            here = next((row.annotation for name, row in fields.items() if (row.alias or name) == step), None)
        else:  # an item of a list or a value of a mapping
            here = next((part for part in get_args(here) if _model_in(part)), None)
        here = _model_in(here) or here
    model = _model_in(here)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The section that `annotation` is, or may be besides None."""
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel) and not _is_container(annotation):
            return part
    return None


def _is_container(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) in (dict, tuple, list)
