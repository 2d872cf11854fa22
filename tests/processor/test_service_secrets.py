"""No secret of the configuration leaves the processor: not by its log, its port, its state, or an error."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import grpc
import httpx
import pytest

from otel_mlmon.cli import main
from otel_mlmon.processor.config.load import load_config
from otel_mlmon.processor.receive.http import PROTOBUF
from otel_mlmon.processor.serve.openapi import PATH
from otel_mlmon.processor.service import Service
from tests.support.otlp_requests import predictions
from tests.support.processes import CLIENT

SECRETS = {
    "INGEST": "ingest-7f3a9b2c4d5e6f70", "READ": "read-7f3a9b2c4d5e6f7001", "ADMIN": "admin-7f3a9b2c4d5e6f700",
    "USER": "user-7f3a9b2c4d5e", "KEY": "key-7f3a9b2c4d5e", "HEADER": "header-7f3a9b2c4d5e", "DSN": "d5e6f7f3a9b2c4",
}  # fmt: skip


def write(folder: Path, *, from_environment: bool) -> Path:
    """A configuration with a secret at every key that takes one."""
    value = {name: "${env:" + name + "}" if from_environment else secret for name, secret in SECRETS.items()}
    document = {
        "receiver": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", "token": value["INGEST"]},
        "storage": {"path": str(folder / "data"), "commit_interval": "1ms"},
        "web": {"listen": "127.0.0.1:0", "read_token": value["READ"], "admin_token": value["ADMIN"]},
        "alerts": {
            "notify": [
                {
                    "webhook": {
                        "url": f"http://someone:{value['USER']}@127.0.0.1:9/{value['USER']}",
                        "secret": value["KEY"],
                        "headers": {"X-Key": value["HEADER"]},
                    }
                },
                {"sentry": {"dsn": f"http://{value['DSN']}@127.0.0.1:9/1"}},
                {"apprise": {"urls": [f"json://someone:{value['USER']}@127.0.0.1:9"]}},
            ]
        },
    }
    path = folder / "mlmon.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def find_secrets(text: str) -> set[str]:
    return {name for name, secret in SECRETS.items() if secret in text}


@pytest.mark.parametrize("from_environment", [True, False])
def test_no_secret_is_in_the_log_an_answer_or_the_state(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], *, from_environment: bool
) -> None:
    caplog.set_level(logging.DEBUG, logger="otel_mlmon")
    config = load_config(write(tmp_path, from_environment=from_environment), SECRETS)
    assert find_secrets(repr(config) + str(config)) == set()
    service = Service(config)
    addresses = service.start()
    try:
        texts = [repr(service)]
        body, headers = predictions().SerializeToString(), {"content-type": PROTOBUF}
        for token in ("wrong", SECRETS["READ"], SECRETS["INGEST"]):
            answer = CLIENT.post(
                f"http://{addresses.http}/v1/metrics",
                content=body,
                headers={**headers, "authorization": f"Bearer {token}"},
                timeout=30,
            )
            texts += [answer.text, str(answer.headers)]
        with grpc.insecure_channel(str(addresses.grpc)) as channel:
            call = channel.unary_unary("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")
            with pytest.raises(grpc.RpcError) as refusal:
                call(body, timeout=30, metadata=(("authorization", f"Bearer {SECRETS['READ']}"),))
        texts.append(str(refusal.value))
        web, reader = f"http://{addresses.web}", {"authorization": f"Bearer {SECRETS['READ']}"}
        paths = CLIENT.get(f"{web}{PATH}", headers=reader, timeout=30).json()["paths"]
        paths = {re.sub(r"\{.*?\}", "fraud", path) for path in paths}
        with httpx.Client(base_url=web, timeout=30, verify=False) as client:
            for path in sorted({*paths, "/", "/setup", "/alerts", "/models/fraud", "/nowhere", "/metrics"}):
                for method, name in (("GET", "READ"), ("GET", "ADMIN"), ("GET", "INGEST"), ("POST", "READ")):
                    head = {"authorization": f"Bearer {SECRETS[name]}"}
                    answer = client.request(method, path, headers=head)
                    texts += [answer.text, str(answer.headers)]
        assert len(texts) > 100
    finally:
        service.shutdown(10.0)
    assert main(["state", "export", "--path", str(tmp_path / "data")]) == 0
    output, errors = capfd.readouterr()
    assert output
    assert find_secrets("\n".join([*texts, output, errors, caplog.text])) == set()
    for file in (tmp_path / "data").rglob("*"):
        assert not any(secret.encode() in file.read_bytes() for secret in SECRETS.values() if file.is_file()), file


@pytest.mark.parametrize("from_environment", [True, False])
def test_a_fault_beside_a_secret_does_not_print_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, from_environment: bool
) -> None:
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    path = write(tmp_path, from_environment=from_environment)
    document = json.loads(path.read_text())
    for section, key in (("receiver", "token"), ("web", "read_token"), ("web", "admin_token")):
        document[section][key] = [document[section][key]]
    webhook, sentry, apprise = (next(iter(entry.values())) for entry in document["alerts"]["notify"])
    webhook["url"], webhook["secret"] = "ftp" + webhook["url"], {"is": webhook["secret"]}
    webhook["headers"] = [webhook["headers"]]
    sentry["dsn"], apprise["urls"] = [sentry["dsn"]], {"all": apprise["urls"]}
    path.write_text(json.dumps(document), encoding="utf-8")
    assert main(["check-config", "--config", str(path)]) == 2
    output, errors = capfd.readouterr()
    assert "receiver.token" in errors + output
    assert find_secrets(output + errors) == set()
