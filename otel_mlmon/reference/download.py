"""The download of a model's reference from a running processor (`GET /api/v1/references/{name}` on its web port)."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import quote

import httpx

from otel_mlmon.errors import ProcessorError, ProfileError
from otel_mlmon.reference.profile import Profile
from otel_mlmon.reference.web_port import WebPort, open_web_client, parse_json_response, read_error_document

PATH: Final = "/api/v1/references/"

_ADVICE: Final = {
    "several_versions": " In this command that is --model-version.",
    "learning": " Use --partial for the streams that have a reference.",
    "unauthorized": " In this command that is --token, or OTEL_MLMON_READ_TOKEN in the environment.",
}
"""Advice to the user, by the reason for which the processor returns no reference."""


class DownloadedReference(NamedTuple):
    """A reference profile that was downloaded from a processor, and the streams that it lacks."""

    profile: Profile
    missing: str
    """The processor's message about streams that are still learning; empty if there are none."""


class _ReferenceReply(NamedTuple):
    profile: Profile | None
    reason: str
    message: str


def download_reference(port: WebPort, model: str, *, version: str | None, is_partial: bool) -> DownloadedReference:
    """Downloads the reference profile that a running processor compares a model with.

    Args:
        port: The processor's web port.
        model: The name of the model in the application.
        version: Its version; None if the processor knows only one.
        is_partial: Whether streams that are still learning are left out; otherwise they are an error.

    Raises:
        ConfigurationError: The address is none.
        ProcessorError: Nothing answers there, it is no processor, or it has no such reference; says which and why.
        ProfileError: What it answers is no profile that this release can read.
    """
    base = port.base_url
    query = {} if version is None else {"version": version}
    with open_web_client(port) as client:
        reply = _request_reference(client, base, model, query)
        missing = reply.message if reply.reason == "learning" and is_partial else ""
        if missing:
            reply = _request_reference(client, base, model, {**query, "partial": "true"})
    if reply.profile is None:
        advice = "" if reply.reason == "learning" and is_partial else _ADVICE.get(reply.reason, "")
        raise ProcessorError(f"{base}: {reply.message}{advice}")
    return DownloadedReference(reply.profile, missing)


def _request_reference(client: httpx.Client, base: str, model: str, query: dict[str, str]) -> _ReferenceReply:
    response = client.get(f"{PATH}{quote(model, safe='')}", params=query)
    if response.status_code == httpx.codes.OK:
        try:
            return _ReferenceReply(Profile.from_dict(parse_json_response(response)), "", "")
        except ProfileError as error:
            raise ProfileError(f"{base}: {error}") from error
    document = read_error_document(response, base)
    return _ReferenceReply(None, str(document.get("reason", "")), document["error"])
