"""Defines the section `storage` of the configuration file."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from otel_mlmon.processor.config.section import ConfigSection, Duration


class StorageSection(ConfigSection):
    """The configuration of where the processor stores the state that survives a restart."""

    path: Path = Field(
        default=Path("mlmon-data"), description="A directory for this processor alone, created if it is missing."
    )
    engine: str = Field(default="sqlite", description="sqlite, or the name of a repository that a package adds.")
    retention_s: Duration = Field(
        default=14 * 86400.0,
        alias="retention",
        gt=0,
        description="A model without data for this long is forgotten, with what it learned.",
    )
    commit_interval_s: Duration = Field(
        default=0.05,
        alias="commit_interval",
        ge=0,
        le=1,
        description="The longest time that an answer waits for its commit.",
    )
