"""Writes the default configuration file, with a comment above every key."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, Final

import yaml
from pydantic import BaseModel

from otel_mlmon.processor.config.model import Config

WIDTH: Final = 100
HEAD: Final = """\
# The processor's configuration: every key, at its default.
# `otel-mlmon check-config --config FILE` checks it.
"""


def render_default_yaml() -> str:
    """Returns the default configuration as YAML with comments, which loads back to the defaults."""
    return HEAD + "\n".join(_render_section_lines(Config(), indent="")) + "\n"


def _render_section_lines(section: BaseModel, *, indent: str) -> Iterator[str]:
    values = section.model_dump(mode="json", by_alias=True)
    for name, field in type(section).model_fields.items():
        key = field.alias or name
        value = getattr(section, name)
        if not indent:
            yield ""
        yield from textwrap.wrap(
            field.description or "", WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        if isinstance(value, BaseModel):
            yield f"{indent}{key}:"
            yield from _render_section_lines(value, indent=indent + "  ")
        elif isinstance(value, dict) and value:
            yield f"{indent}{key}:"
            for pattern, entry in value.items():
                yield f"{indent}  {_render_yaml_value(pattern)}:"
                yield from _render_section_lines(entry, indent=indent + "    ")
        else:
            yield f"{indent}{key}: {_render_yaml_value(values[key])}"


def _render_yaml_value(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()
