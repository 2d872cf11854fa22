from __future__ import annotations

import time
from pathlib import Path

import pytest

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.config.load import load_config


def faults(folder: Path, text: str) -> list[str]:
    path = folder / "mlmon.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        load_config(path, {})
    except ConfigurationError as error:
        return [fault.removeprefix(f"{path}:") for fault in error.faults]
    return []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'receiver:\n  grpc: "127.0.0.1:4317"\n  http: "127.0.0.1:4317"\n',
            ["3: receiver.http: is port 4317, as receiver.grpc is: give each a port of its own"],
        ),
        (
            'receiver:\n  http: "[::1]:9"\nweb:\n  listen: "0.0.0.0:9"\n',
            ["4: web.listen: is port 9, as receiver.http is: give each a port of its own"],
        ),
        ('receiver: {grpc: "127.0.0.1:9", http: "127.0.0.2:9"}', []),
        ('receiver: {grpc: "127.0.0.1:0", http: "127.0.0.1:0"}\nweb: {listen: "127.0.0.1:0"}', []),
        (
            "forward:\n  endpoint: http://localhost:4317\n",
            ["2: forward.endpoint: is receiver.grpc of this processor itself"],
        ),
        (
            'receiver: {grpc: "0.0.0.0:7"}\nforward: {endpoint: "http://127.0.0.1:7"}',
            ["2: forward.endpoint: is receiver.grpc of this processor itself"],
        ),
        ('forward: {endpoint: "http://collector:4317"}', []),
        (
            "alerts: {notify: []}",
            ["1: alerts.notify: names nobody: alerts would go nowhere; `[{log: {}}]` is the least"],
        ),
        (
            "alerts:\n  notify: [{otlp: {}}]\n",
            ["2: alerts.notify: is otlp alone, and forward.endpoint is not set: alerts would go nowhere"],
        ),
        ("alerts: {notify: [{otlp: {}}]}\nforward: {endpoint: 'http://127.0.0.1:14317'}", []),
        (
            'web: {listen: "127.0.0.1:9"}\nalerts:\n  notify:\n    - webhook:\n        url: http://localhost:9/x\n',
            ["5: alerts.notify[0].webhook.url: is web.listen of this processor itself"],
        ),
        (
            'receiver: {http: "0.0.0.0:9"}\nalerts: {notify: [{alertmanager: {urls: ["http://127.0.0.1:1", '
            '"http://127.0.0.1:9"]}}]}',
            ["2: alerts.notify[0].alertmanager.urls[1]: is receiver.http of this processor itself"],
        ),
        (
            "receiver: {http: '127.0.0.1:4318'}\nalerts:\n  notify:\n    - apprise:\n"
            "        urls: ['json://u:hunter2@127.0.0.1:4318/x', 'json://127.0.0.1:9', 'mailto://u:p@example.org']\n",
            ["5: alerts.notify[0].apprise.urls[0]: is receiver.http of this processor itself"],
        ),
        ("alerts: {notify: [{command: {run: [sh, -c, 'exit 0']}}]}", []),
        (
            "alerts:\n  notify:\n    - command:\n        run: [/nowhere/rollback]\n",
            [
                "4: alerts.notify[0].command.run: there is no program '/nowhere/rollback' that can be run: "
                "alerts would go nowhere"
            ],
        ),
        (
            "models:\n  fraud:\n    reference:\n      file: /nowhere/x.json\n",
            ["4: models.fraud.reference.file: there is no file '/nowhere/x.json' that can be read"],
        ),
        (
            "web:\n  tls:\n    certificate: /nowhere/a.pem\n    key: /nowhere/b.pem\n",
            [
                "3: web.tls.certificate: there is no file '/nowhere/a.pem' that can be read",
                "4: web.tls.key: there is no file '/nowhere/b.pem' that can be read",
            ],
        ),
        (
            "receiver: {tls: {certificate: a.pem}}",
            ["1: receiver.tls: certificate and key belong together: set both or neither"],
        ),
    ],
)
def test_what_does_not_fit_is_named_by_line_and_key(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert faults(tmp_path, text) == expected


def test_a_store_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert faults(tmp_path, f"storage: {{path: {tmp_path}/data}}") == [
        f"1: storage.path: {str(tmp_path / 'data')!r} is not a directory"
    ]


def test_a_secret_that_is_wrong_is_not_repeated(tmp_path: Path) -> None:
    text = "receiver: {token: hunter2}\nweb: {read_token: hunter3, admin_token: hunter4}"
    told = faults(tmp_path, text)
    assert [fault.partition(": must be")[0] for fault in told] == [
        "1: receiver.token", "2: web.admin_token", "2: web.read_token"
    ]  # fmt: skip
    assert "hunter" not in "".join(told)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{previous}'] * 10)}]\n"
    for previous, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (LAUGHS, "has more than 100000 values, with those that aliases repeat"),
        ("x: " + "[" * 100 + "]" * 100, "is nested more than 32 levels deep"),
        ("x: " + "[" * 20_000, "is nested more than 32 levels deep"),
        ("x: " + "{a: " * 3_000 + "1" + "}" * 3_000, "is nested more than 32 levels deep"),
        ("a: &a [*a]", "contains itself"),
        ("# " + "x" * 2**20, "is larger than 1048576 characters"),
    ],
)
def test_a_file_that_is_an_attack_is_a_fault_and_soon(tmp_path: Path, text: str, fault: str) -> None:
    begins_s = time.process_time()
    told = faults(tmp_path, text)
    assert any(fault in line for line in told), told[:3]
    assert time.process_time() - begins_s < 10
