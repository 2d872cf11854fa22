"""Loads and checks a configuration file, or lists everything that is wrong with it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.config.consistency import find_inconsistencies
from otel_mlmon.processor.config.document import ConfigFault, KeyPath, YamlDocument, read_document
from otel_mlmon.processor.config.model import Config

_SECRET_PATHS: Final = (("alerts", "notify"), ("web", "admin_token"), ("web", "read_token"), ("receiver", "token"))
"""No value at or below one is repeated in a message: an address may hold a token as well as a header does."""

_MESSAGES: Final = {
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
"""Our message for each of pydantic's kinds of error; its limits are in seconds, bytes and ratios."""


def load_config(path: Path | str | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Loads and checks a configuration file.

    Args:
        path: The file; None is the defaults.
        environ: The variables that `${env:NAME}` stands for.

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
    document = read_document(text, environ)
    faults = list(document.faults)
    config = None
    if document.value is not None or not faults:
        try:
            config = Config.model_validate(document.value)
        except ValidationError as error:
            faulty_paths = {fault.path for fault in faults}
            faults += [fault for fault in _list_validation_faults(error, document) if fault.path not in faulty_paths]
    if config is not None:
        faults += [
            ConfigFault(line=document.find_line(path), path=path, text=text)
            for path, text in find_inconsistencies(config)
        ]
    if config is None or faults:
        faults.sort(key=lambda fault: (fault.line, _format_key_path(fault.path)))
        # From None: the chain would print values that may be secret.
        raise ConfigurationError(*(_format_config_fault(str(path), fault) for fault in faults)) from None
    return config


def _format_config_fault(name: str, fault: ConfigFault) -> str:
    path = f"{_format_key_path(fault.path)}: " if fault.path else ""
    return f"{name}:{fault.line}: {path}{fault.text}"


def _format_key_path(path: KeyPath) -> str:
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            key = f'"{step}"' if "." in step or not step else step
            text += f".{key}" if text else key
    return text


def _list_validation_faults(error: ValidationError, document: YamlDocument) -> Iterator[ConfigFault]:
    for detail in error.errors(include_url=False, include_input=False):
        path = detail["loc"]
        yield ConfigFault(line=document.find_line(path), path=path, text=_describe_mistake(detail, document))


def _describe_mistake(detail: ErrorDetails, document: YamlDocument) -> str:
    path = detail["loc"]
    if detail["type"] == "extra_forbidden":
        similar = difflib.get_close_matches(str(path[-1]), _list_section_keys(path[:-1]), n=1)
        return "is not a known key" + (f" (did you mean `{similar[0]}`?)" if similar else "")
    message = _MESSAGES.get(detail["type"])
    text = message.format(**detail.get("ctx", {})) if message else detail["msg"]
    # As written in the file, so that what came from the environment stays there.
    source = document.sources.get(path)
    if source is None or path[:2] in _SECRET_PATHS:
        return text
    return f"{text}, got {source!r}"


def _list_section_keys(path: KeyPath) -> list[str]:
    """Returns the keys that the section at a path of the configuration file may have."""
    annotation: Any = Config
    for step in path:
        section = _find_section_class(annotation)
        if section is None:  # an item of a list or a value of a mapping
            annotation = get_args(annotation)[-1 if get_origin(annotation) is dict else 0]
        else:
            fields = section.model_fields.items()
            annotation = next((field.annotation for name, field in fields if (field.alias or name) == step), None)
    section = _find_section_class(annotation)
    return [field.alias or name for name, field in section.model_fields.items()] if section else []


def _find_section_class(annotation: Any) -> type[BaseModel] | None:
    """Returns the section class in a field's type annotation, optional or not; None if it has no section class."""
    if get_origin(annotation) in (dict, tuple):
        return None
    parts = (annotation, *get_args(annotation))
    return next((part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)), None)
