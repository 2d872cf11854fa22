"""Asks a running processor to learn references again (`POST /api/v1/relearn/{name}` on its web port)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from otel_mlmon.reference.web_port import WebPort, request_json_document

PATH: Final = "/api/v1/relearn/"

_ADVICE: Final = {
    "several_versions": " In this command that is --model-version.",
    "unauthorized": " In this command that is --token, or OTEL_MLMON_ADMIN_TOKEN in the environment.",
}
"""Advice to the user, by the reason for which the processor refuses."""


def request_relearning(port: WebPort, model: str, *, version: str | None, streams: Sequence[str]) -> tuple[str, ...]:
    """Asks a running processor to forget learned references of a model, and to learn them again from now on.

    Args:
        port: The processor's web port, with `web.admin_token` as its token.
        model: The name of the model in the application.
        version: Its version; None if the processor knows only one.
        streams: Whose references; all that can be learned if empty.

    Returns:
        The streams that learn now.

    Raises:
        ConfigurationError: The address is none.
        ProcessorError: Nothing answers there, it is no processor, or it refuses; says why.
    """
    query: dict[str, str | Sequence[str]] = {"stream": list(streams)}
    query |= {"version": version} if version is not None else {}
    path = f"{PATH}{quote(model, safe='')}"
    document = request_json_document("POST", port, path, query=query, advice=_ADVICE)
    return tuple(map(str, document["streams"]))
