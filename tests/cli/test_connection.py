"""Every command that speaks to a processor reaches one of a private authority that asks for a certificate."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_mlmon import cli
from tests.cli.test_reference_export import service
from tests.support.certificates import make_certificate
from tests.support.ports import free_port

READ_TOKEN, ADMIN_TOKEN = "r" * 20, "a" * 20
CONNECTION = {"--url", "--token", "--ca", "--cert", "--key"}


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of commands without actions of their own."""
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not actions:
        yield parser
    for action in actions:
        for child in set(action.choices.values()):
            yield from leaves(child)


def test_every_command_with_an_address_takes_token_and_certificates_too() -> None:
    with_address = []
    for name in cli.COMMANDS:
        parser = argparse.ArgumentParser(prog=name)
        cli._import_command_module(name).add_arguments(parser)
        for leaf in leaves(parser):
            options = {option for action in leaf._actions for option in action.option_strings}
            if "--url" in options:
                with_address.append(leaf.prog)
                assert options >= CONNECTION, leaf.prog
    assert sorted(with_address) == [
        "alert list", "alert silence", "alert silences", "alert unsilence", "doctor", "reference export",
        "reference relearn",
    ]  # fmt: skip


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("READ_TOKEN", "ADMIN_TOKEN", "CA", "CERT", "KEY"):
        monkeypatch.delenv(f"OTEL_MLMON_{name}", raising=False)


@pytest.mark.usefixtures("environment")
def test_a_private_authority_and_a_certificate_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server, client = make_certificate(tmp_path, "server"), make_certificate(tmp_path, "client")
    tls = {"certificate": str(server.certificate), "key": str(server.key), "client_ca": str(client.certificate)}
    web = {
        "listen": f"127.0.0.1:{free_port()}", "read_token": READ_TOKEN, "admin_token": ADMIN_TOKEN, "tls": tls,
    }  # fmt: skip
    with service(tmp_path / "data", sections={"web": web}) as running:
        url = f"https://{running.web}"
        commands = (
            (["alert", "list"], READ_TOKEN, 0, "Nothing fires"),
            (["alert", "silences"], READ_TOKEN, 0, "Nothing is silenced."),
            (["alert", "silence", "m", "--author", "ann"], ADMIN_TOKEN, 0, "all rules of m"),
            (["alert", "unsilence", "x"], ADMIN_TOKEN, 2, "There is no silence 'x'"),
            (["reference", "export", "m"], READ_TOKEN, 2, "There is no model 'm'"),
            (["reference", "relearn", "m"], ADMIN_TOKEN, 2, "There is no model 'm'"),
            (["doctor"], READ_TOKEN, 1, f"+ processor: answers at {url}"),
        )
        trusted = ["--ca", str(server.certificate), "--cert", str(client.certificate), "--key", str(client.key)]
        for words, token, code, text in commands:
            assert cli.main([*words, "--url", url, "--token", token, *trusted]) == code, words
            assert text.lower() in "".join(capsys.readouterr()).lower(), words
            assert cli.main([*words, "--url", url, "--token", token, *trusted[:2]]) in (1, 2)
            assert text.lower() not in "".join(capsys.readouterr()).lower(), words
        monkeypatch.setenv("OTEL_MLMON_CA", str(server.certificate))
        monkeypatch.setenv("OTEL_MLMON_CERT", str(client.certificate))
        monkeypatch.setenv("OTEL_MLMON_KEY", str(client.key))
        monkeypatch.setenv("OTEL_MLMON_READ_TOKEN", READ_TOKEN)
        assert cli.main(["alert", "list", "--url", url]) == 0
        config = ["--config", str(tmp_path / "data" / "mlmon.yaml")]
        capsys.readouterr()
        monkeypatch.delenv("OTEL_MLMON_CA")
        cli.main(["doctor", *config])
        assert f"answers at {url}" in capsys.readouterr().out


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ca", "none.pem"], "none.pem: cannot be used as a certificate authority"),
        (["--cert", "none.pem"], "none.pem: cannot be used as a certificate with its key"),
        (["--key", "own.key"], "own.key: is the key of no certificate; give that one with --cert"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["alert", "list", *words]) == 2
    assert message in capsys.readouterr().err
