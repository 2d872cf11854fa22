"""A whole processor whose configuration is replaced while it runs."""

from __future__ import annotations

import shutil
import sqlite3
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from otel_mlmon.errors import ConfigurationError, StoreError
from otel_mlmon.processor.config.load import load_config
from otel_mlmon.processor.receive.http import PROTOBUF
from otel_mlmon.processor.service import ServiceAddresses
from otel_mlmon.processor.state.sqlite import FILE_NAME
from tests.processor.test_service import create, get, post, predictions
from tests.support.certificates import make_certificate
from tests.support.processes import CLIENT, until

OLD, NEW = "o" * 20, "n" * 20


def predictions_of(addresses: ServiceAddresses, token: str = "") -> int:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    answer = CLIENT.get(f"http://{addresses.web}/api/v1/models/fraud@staging", headers=headers, timeout=10)
    return int(answer.json()["predictions"]) if answer.status_code == 200 else -answer.status_code


def send(addresses: ServiceAddresses, body: bytes, token: str) -> int:
    headers = {"content-type": PROTOBUF, "authorization": f"Bearer {token}"}
    return CLIENT.post(f"http://{addresses.http}/v1/metrics", content=body, headers=headers, timeout=10).status_code


def test_models_and_tokens_are_replaced_and_what_was_counted_stays(tmp_path: Path) -> None:
    service = create(tmp_path, receiver={"grpc": "", "http": "127.0.0.1:0", "token": OLD})
    addresses = service.start()
    assert [send(addresses, predictions("staging", 30), token) for token in (OLD, NEW)] == [200, 401]
    until(lambda: predictions_of(addresses) == 30)
    wanted = create_configuration(
        tmp_path,
        receiver={"grpc": "", "http": "127.0.0.1:0", "token": NEW},
        web={"listen": "127.0.0.1:0", "read_token": NEW},
        models={"fraud": {"reference": {"learn": 77}}},
    )
    assert service.reload(wanted) == ()
    assert [send(addresses, predictions("staging", 12), token) for token in (OLD, NEW)] == [401, 200]
    assert predictions_of(addresses) == -401
    until(lambda: predictions_of(addresses, NEW) == 42)
    headers = {"authorization": f"Bearer {NEW}"}
    document = CLIENT.get(f"http://{addresses.web}/api/v1/models/fraud@staging", headers=headers, timeout=10).json()
    assert {stream["required_count"] for stream in document["streams"] if stream["stream"] == "prediction.label"} == {
        77
    }
    assert service.shutdown(30.0)


def create_configuration(folder: Path, **sections: Any) -> Any:
    """What `create` gives a processor in this folder, without making one."""
    create(folder, **sections)
    return load_config(folder / "mlmon.yaml", {})


def test_what_needs_a_start_is_named_and_keeps_its_value(tmp_path: Path) -> None:
    service = create(tmp_path)
    addresses = service.start()
    wanted = create_configuration(
        tmp_path,
        receiver={"grpc": "", "http": "127.0.0.1:1"},
        storage={"path": str(tmp_path / "elsewhere")},
        web={"listen": "127.0.0.1:2"},
    )
    assert service.reload(wanted) == ("receiver.grpc", "receiver.http", "storage", "web.listen")
    assert post(addresses, predictions("staging", 1)) == 200
    assert get(addresses, "/readyz").status_code == 200
    assert not (tmp_path / "elsewhere").exists()
    assert service.shutdown(30.0)


def test_a_broken_reference_changes_nothing(tmp_path: Path) -> None:
    service = create(tmp_path)
    addresses = service.start()
    assert post(addresses, predictions("staging", 5)) == 200
    wanted = load_config(tmp_path / "mlmon.yaml", {})
    (tmp_path / "broken.json").write_text("{}")
    model = wanted.models["*"]
    broken = model.model_copy(
        update={"reference": model.reference.model_copy(update={"file": tmp_path / "broken.json"})}
    )
    with pytest.raises(ConfigurationError, match=r"models\.fraud\.reference\.file"):
        service.reload(wanted.model_copy(update={"models": {"fraud": broken}}))
    assert post(addresses, predictions("staging", 6)) == 200
    until(lambda: predictions_of(addresses) == 11)
    assert service.shutdown(30.0)


def test_certificates_are_read_again(tmp_path: Path) -> None:
    first, second = make_certificate(tmp_path, "first"), make_certificate(tmp_path, "second")
    shutil.copy(first.certificate, tmp_path / "tls.pem")
    shutil.copy(first.key, tmp_path / "tls.key")
    tls = {"certificate": str(tmp_path / "tls.pem"), "key": str(tmp_path / "tls.key")}
    service = create(tmp_path, receiver={"grpc": "", "http": "127.0.0.1:0", "tls": tls})
    addresses = service.start()

    def answered(certificate: Path) -> int:
        context = ssl.create_default_context(cafile=str(certificate))
        url, headers = f"https://{addresses.http}/v1/metrics", {"content-type": PROTOBUF}
        try:
            return httpx.post(url, content=b"", headers=headers, verify=context, timeout=10).status_code
        except httpx.ConnectError:
            return 0

    assert (answered(first.certificate), answered(second.certificate)) == (200, 0)
    shutil.copy(second.certificate, tmp_path / "tls.pem")
    with pytest.raises(ConfigurationError, match=r"^receiver\.tls: the certificate and its key cannot be used"):
        service.reload(load_config(tmp_path / "mlmon.yaml", {}))
    assert answered(first.certificate) == 200
    shutil.copy(second.key, tmp_path / "tls.key")
    assert service.reload(load_config(tmp_path / "mlmon.yaml", {})) == ()
    until(lambda: answered(second.certificate) == 200)
    until(lambda: answered(first.certificate) == 0)
    assert service.shutdown(30.0)


def test_a_state_that_cannot_be_loaded_again_refuses_at_once_and_another_reload_mends_it(tmp_path: Path) -> None:
    service = create(tmp_path)
    addresses = service.start()
    assert post(addresses, predictions("staging", 30)) == 200
    until(lambda: predictions_of(addresses) == 30)
    wanted = create_configuration(tmp_path)
    other = sqlite3.connect(tmp_path / "data" / FILE_NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # a tool of somebody else holds the file
    with pytest.raises(StoreError, match="in use"):
        service.reload(wanted)
    assert post(addresses, predictions("staging", 12)) == 503
    assert get(addresses, "/readyz").status_code == 503
    assert predictions_of(addresses) == 30  # what was known last
    other.execute("ROLLBACK")
    other.close()
    service.reload(wanted)
    assert post(addresses, predictions("staging", 12)) == 200
    until(lambda: predictions_of(addresses) == 42)
    assert service.shutdown(30.0)


def test_a_reload_that_would_not_wait_for_what_has_arrived_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = create(tmp_path)
    addresses = service.start()
    wanted = create_configuration(tmp_path)
    monkeypatch.setattr("otel_mlmon.processor.service.RELOAD_TIMEOUT_S", 0.0)
    with pytest.raises(StoreError, match="was not stored within 0 s"):
        service.reload(wanted)
    monkeypatch.undo()
    service.reload(wanted)
    assert post(addresses, predictions("staging", 12)) == 200
    until(lambda: predictions_of(addresses) == 12)
    assert service.shutdown(30.0)
