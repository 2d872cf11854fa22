"""The web addresses of models and streams, and the shell commands that a person may want for a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from otel_mlmon.processor.alert.alert import quote_shell
from otel_mlmon.processor.serve.page import words

MAX_COMMAND: Final = 240
"""A longer command is on the page of its alert only."""
ALERT_COMMANDS: Final = {
    "relearn_command": "If this change is intended, learn it as the new normal",
    "silence_command": "To silence this alert for two hours",
}
"""The commands in the document of an alert, and what each is for."""


def build_model_url(model_id: str, version: str, **parameters: str) -> str:
    """Returns the web address of a model version's page."""
    query = {"version": words.encode_segment(version) if version else "", **parameters}
    text = "&".join(f"{name}={value}" for name, value in query.items() if value)
    return f"/models/{words.encode_segment(model_id)}" + (f"?{text}" if text else "")


def build_stream_url(model_id: str, version: str, stream: str) -> str:
    """Returns the web address of a stream's page."""
    suffix = f"?version={words.encode_segment(version)}" if version else ""
    return f"/models/{words.encode_segment(model_id)}/streams/{words.encode_segment(stream)}{suffix}"


def build_commands(model_id: str, version: str) -> list[tuple[str, str]]:
    """Builds the shell commands that a person may want for a model version, ready to copy."""
    options = [f"--model-version {quote_shell(version)}"] if version else []
    options += ["--"] if model_id.startswith("-") else []
    tail = " ".join([*options, quote_shell(model_id)])
    return [
        ("Save what counts as normal for it", f"otel-mlmon reference export {tail}"),
        ("Learn again what is normal, if the change is meant", f"otel-mlmon reference relearn {tail}"),
    ]


def list_alert_commands(alerts: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Lists the shell commands about alerts that go on: to silence each alert, and to accept the data that drifted."""
    listed = list(alerts)
    commands = [(title, alert[key]) for key, title in ALERT_COMMANDS.items() for alert in listed]
    return [(title, command) for title, command in dict.fromkeys(commands) if command and len(command) <= MAX_COMMAND]
