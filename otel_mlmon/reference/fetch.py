"""A model's reference from a running processor, over its web port (`GET /api/v1/references/{name}`)."""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from urllib.parse import quote

import httpx

from otel_mlmon.errors import ConfigurationError, ProfileError
from otel_mlmon.reference.profile import Profile

PATH: Final = "/api/v1/references/"

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")

_HINTS: Final = {
    "several_versions": " --model-version says which.",
    "learning": " --partial takes the streams that have one.",
}
"""What to do about a reason for which the processor gives none."""


class Fetched(NamedTuple):
    """A profile, and what was not in it."""

    profile: Profile
    left_out: str
    """The processor's words for the streams that still learn; empty if there are none."""


class _Answer(NamedTuple):
    profile: Profile | None
    reason: str
    words: str


def fetch(address: str, model: str, *, version: str | None, is_partial: bool, timeout_s: float) -> Fetched:
    """What a processor judges a model by.

    Args:
        address: The processor's web port, with or without `http://`.
        model: As the application calls it.
        version: Which one; None where the processor knows one only.
        is_partial: Whether streams that still learn are left out; else there is none to have.
        timeout_s: How long each step of a request may take, above 0.

    Raises:
        ConfigurationError: `address` is none.
        ProfileError: Nothing answers there, it is no processor, or it has no such reference; says which and why.
    """
    base = (address if "://" in address else f"http://{address}").rstrip("/")
    asked = {} if version is None else {"version": version}
    try:
        # A proxy of the environment is for the world outside, and would be asked for 127.0.0.1 too.
        is_local = httpx.URL(base).host in LOOPBACK
        with httpx.Client(timeout=timeout_s, trust_env=not is_local) as client:
            first = _ask(client, base, model, asked)
            again = first.reason == "learning" and is_partial
            answer = _ask(client, base, model, {**asked, "partial": "true"}) if again else first
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ConfigurationError(f"--from: {address!r} is no address of a web port: {error}") from error
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        raise ProfileError(f"{base}: no processor answers there: {why}; --from says where one does") from error
    if answer.profile is None:
        hint = "" if answer.reason == "learning" and is_partial else _HINTS.get(answer.reason, "")
        raise ProfileError(f"{base}: {answer.words}{hint}")
    return Fetched(answer.profile, first.words if again else "")


def _ask(client: httpx.Client, base: str, model: str, asked: dict[str, str]) -> _Answer:
    answer = client.get(f"{base}{PATH}{quote(model, safe='')}", params=asked)
    document = _document(answer)
    if answer.status_code == httpx.codes.OK:
        try:
            return _Answer(Profile.from_dict(document), "", "")
        except ProfileError as error:
            raise ProfileError(f"{base}: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("error"), str):
        raise ProfileError(f"{base}: answers {answer.status_code}, and is no processor's web port")
    return _Answer(None, str(document.get("reason", "")), document["error"])


def _document(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None
