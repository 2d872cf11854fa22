"""Addresses of models and streams, and the commands that a person may want for a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otel_mlmon.processor.alert.alert import SILENCE_FOR
from otel_mlmon.processor.serve.page import words
from otel_mlmon.types import ModelKey


def model_url(model_id: str, version: str, **parameters: str) -> str:
    """Returns the address of a model version."""
    query = {"version": words.encode_segment(version) if version else "", **parameters}
    text = "&".join(f"{name}={value}" for name, value in query.items() if value)
    return f"/models/{words.encode_segment(model_id)}" + (f"?{text}" if text else "")


def stream_url(model_id: str, version: str, stream: str) -> str:
    """Returns the address of a stream."""
    suffix = f"?version={words.encode_segment(version)}" if version else ""
    return f"/models/{words.encode_segment(model_id)}/streams/{words.encode_segment(stream)}{suffix}"


def build_commands(model_id: str, version: str) -> list[tuple[str, str]]:
    """Builds the commands that a person may want for a model version, ready to copy."""
    options = [f"--model-version {quote_shell(version)}"] if version else []
    options += ["--"] if model_id.startswith("-") else []
    tail = " ".join([*options, quote_shell(model_id)])
    return [
        ("Save what counts as normal for it", f"otel-mlmon reference export {tail}"),
        ("Learn again what is normal, if the change is meant", f"otel-mlmon reference relearn {tail}"),
    ]


def build_silence_command(alert: Mapping[str, Any]) -> str:
    """Builds the command that silences the rule of an alert for its model."""
    model_id = ModelKey(alert["model"], alert["version"], alert["environment"]).id
    tail = ["--"] if model_id.startswith("-") else []
    options = ["--rule", quote_shell(alert["rule"]), "--for", SILENCE_FOR]
    return " ".join(["otel-mlmon alert silence", *options, *tail, quote_shell(model_id)])


def quote_shell(text: str) -> str:
    """Quotes text for a POSIX shell; characters that do not print are spelled as the shell's `$'…'` has them."""
    if text and all((char.isalnum() and char.isascii()) or char in "._-/@:" for char in text):
        return text
    if text.isprintable():
        return "'" + text.replace("'", "'\"'\"'") + "'"
    return f"$'{''.join(map(_spell, text))}'"


def _spell(char: str) -> str:
    if char.isprintable() and char not in "\\'":
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode(errors="surrogatepass"))
