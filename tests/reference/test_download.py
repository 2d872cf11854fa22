from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from otel_mlmon.errors import ConfigurationError, ProcessorError, ProfileError
from otel_mlmon.reference.download import PATH, download_reference
from otel_mlmon.reference.web_port import WebPort


class Quiet(SimpleHTTPRequestHandler):
    """Files, and nothing said of them."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
        """Nothing."""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[str]:
    """A web server that is no processor, with files of the folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def refused(address: str) -> str:
    with pytest.raises((ProcessorError, ProfileError)) as caught:
        download_reference(WebPort(address=address, timeout_s=5.0), "digits", version=None, is_partial=False)
    return str(caught.value)


def test_where_nobody_listens_it_says_so_and_what_sets_the_address() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can take it
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
        message = refused(address)
    assert message.startswith(f"{address}: no processor answers there: ")
    assert message.endswith("; give the address of one with --url")


def test_who_never_answers_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = WebPort(address=f"127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.05)
        with pytest.raises(ProcessorError, match="no processor answers there: timed out"):
            download_reference(port, "m", version=None, is_partial=False)


def test_another_server_is_no_processor(elsewhere: str, tmp_path: Path) -> None:
    assert refused(elsewhere) == f"http://{elsewhere}: answers 404, and is no processor's web port"
    file = tmp_path / PATH.strip("/") / "digits"
    file.parent.mkdir(parents=True)
    for content, message in {
        "[" * 100_000: "not a reference profile",
        "<html>": "not a reference profile",
        '{"format": "other"}': "not a reference profile",
        '{"format": "otel-mlmon.reference", "version": 9}': "version: 9 is unknown, this release reads 1",
    }.items():
        file.write_text(content)
        assert refused(elsewhere).startswith(f"http://{elsewhere}: {message}")


@pytest.mark.parametrize("address", ["ftp://host", "http://", "http://host:port", "http://[::1"])
def test_what_is_no_address_is_said(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--url: .* is no address of a web port"):
        download_reference(WebPort(address=address, timeout_s=1.0), "m", version=None, is_partial=False)
