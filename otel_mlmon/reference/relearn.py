"""Asks a running processor to learn references again (`POST /api/v1/relearn/{name}` on its web port)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

import httpx

from otel_mlmon.errors import ProfileError
from otel_mlmon.reference.web_port import connect, format_base, parse_json, read_document

PATH: Final = "/api/v1/relearn/"

_ADVICE: Final = {
    "several_versions": " In this command that is --model-version.",
    "unauthorized": " In this command that is --token, or OTEL_MLMON_ADMIN_TOKEN in the environment.",
}
"""Advice to the user, by the reason for which the processor refuses."""


def request_relearning(
    address: str, model: str, *, version: str | None, streams: Sequence[str], token: str, timeout_s: float
) -> tuple[str, ...]:
    """Asks a processor to forget learned references and to learn them from what comes next.

    Args:
        address: The processor's web port, with or without `http://`.
        model: The name of the model in the application.
        version: Its version; None if the processor knows only one.
        streams: Whose references; all that can be learned if empty.
        token: The processor's `web.admin_token`; empty sends none.
        timeout_s: How long each step of the request may take, above 0.

    Returns:
        The streams that learn now.

    Raises:
        ConfigurationError: `address` is no address.
        ProfileError: Nothing answers there, it is no processor, or it refuses; says why.
    """
    base = format_base(address)
    query: dict[str, str | Sequence[str]] = {"stream": list(streams)}
    query |= {"version": version} if version is not None else {}
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with connect(address, option="--url", timeout_s=timeout_s) as client:
        response = client.post(f"{PATH}{quote(model, safe='')}", params=query, headers=headers)
    document = parse_json(response)
    if response.status_code == httpx.codes.OK and isinstance(document, dict) and "streams" in document:
        return tuple(map(str, document["streams"]))
    refusal = read_document(response, base)
    raise ProfileError(f"{base}: {refusal['error']}{_ADVICE.get(str(refusal.get('reason', '')), '')}")
