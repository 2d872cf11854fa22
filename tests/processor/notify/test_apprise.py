from __future__ import annotations

import email
import email.policy
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope
from apprise.plugins.base import NotifyBase

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.config.load import load_config
from otel_mlmon.processor.notify.apprise import AppriseNotifier, AppriseSection
from otel_mlmon.processor.notify.notifier import PermanentError, TransientError
from tests.support.alerts import FIRING, RESOLVED
from tests.support.ports import free_port
from tests.support.webhook_server import Answer, webhook_server


def notifier(*urls: str, timeout: str = "30s") -> AppriseNotifier:
    return AppriseNotifier(AppriseSection.model_validate({"urls": urls, "timeout": timeout}))


@dataclass
class Inbox:
    """Mails, and the answers that were ordered to `DATA`."""

    answers: list[str] = field(default_factory=list)
    mails: list[tuple[str, list[str], Any]] = field(default_factory=list)

    async def handle_DATA(self, server: object, session: object, envelope: Envelope) -> str:  # noqa: N802
        if self.answers:
            return self.answers.pop(0)
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        mail = email.message_from_bytes(content, policy=email.policy.default)
        self.mails.append((envelope.mail_from or "", envelope.rcpt_tos, mail))
        return "250 OK"


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def smtp(inbox: Inbox) -> Iterator[int]:
    port = free_port()
    controller = Controller(inbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


def test_a_mail_has_the_title_as_its_subject_and_the_text_in_it(
    inbox: Inbox, smtp: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NotifyBase, "request_rate_per_sec", 0.0)  # Apprise's own pause between two mails
    inbox.answers = ["451 come again"]
    mailer = notifier(f"mailto://127.0.0.1:{smtp}/?from=mlmon@example.org&to=ann@example.org&mode=insecure")
    with pytest.raises(TransientError, match=r"^URL 1 \(E-Mail\) did not take it$"):
        mailer.notify(FIRING)
    mailer.notify(FIRING)
    ((sender, recipients, mail),) = inbox.mails
    assert (sender, recipients) == ("mlmon@example.org", ["ann@example.org"])
    assert mail["Subject"] == "FIRING · critical · digits 1 · prediction drift"
    body = mail.get_body(("plain", "html")).get_content().replace("&nbsp;", " ")
    assert "prediction.label moved: class 3: 10 % → 45 %" in body


def test_json_tells_the_kind_and_only_those_who_lack_it_are_told_again() -> None:
    with webhook_server(Answer()) as sound, webhook_server(Answer(status=503), Answer()) as broken:
        urls = [server.url.replace("http:", "json:") for server in (sound, broken)]
        both = notifier(*urls)
        with pytest.raises(TransientError, match=r"^URL 2 \(JSON\): HTTP 503$"):
            both.notify(FIRING)
        both.notify(FIRING)
        both.notify(replace_fields(FIRING, severity="warning", sequence=5))
        both.notify(RESOLVED)
        kinds = [[json.loads(request.body)["type"] for request in server.received] for server in (sound, broken)]
    assert kinds == [["failure", "warning", "success"], ["failure", "failure", "warning", "success"]]


def test_a_status_code_says_whether_to_try_again_and_a_silent_peer_is_given_up() -> None:
    with webhook_server(Answer(status=404), Answer(status=429), Answer(waits=True)) as server:
        chat = notifier(server.url.replace("http:", "json:"), timeout="1s")
        with pytest.raises(PermanentError, match=r"^URL 1 \(JSON\): HTTP 404$"):
            chat.notify(FIRING)
        with pytest.raises(TransientError, match="HTTP 429"):
            chat.notify(FIRING)
        with pytest.raises(TransientError) as caught:
            chat.notify(FIRING)
    assert caught.value.is_ambiguous


def test_two_threads_do_not_read_each_others_log() -> None:
    with webhook_server(Answer(status=404)) as gone, webhook_server(Answer(status=503)) as busy:
        outcomes: list[str] = []

        def send(url: str) -> None:
            chat = notifier(url.replace("http:", "json:"))
            for _ in range(10):
                with pytest.raises((PermanentError, TransientError)) as caught:
                    chat.notify(FIRING)
                outcomes.append(f"{caught.type.__name__} {caught.value}")

        threads = [threading.Thread(target=send, args=(server.url,)) for server in (gone, busy)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    failures = ["PermanentError URL 1 (JSON): HTTP 404", "TransientError URL 1 (JSON): HTTP 503"]
    assert sorted(outcomes) == sorted(failures * 10)


def test_neither_log_nor_error_names_the_address(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), webhook_server(Answer(status=500)) as server:
        chat = notifier(server.url.replace("http://", "json://user:s3cret@") + "?token=t0ken")
        with pytest.raises(TransientError) as caught:
            chat.notify(FIRING)
    text = caplog.text + str(caught.value) + repr(AppriseSection.model_validate({"urls": ["json://u:s3cret@h"]}))
    assert ("s3cret" in text, "t0ken" in text) == (False, False)


def test_what_apprise_does_not_know_is_a_fault_of_the_configuration(tmp_path: Any) -> None:
    (tmp_path / "mlmon.yaml").write_text('alerts: {notify: [{apprise: {urls: ["${env:CHAT}"]}}]}')
    with pytest.raises(ConfigurationError) as caught:
        load_config(tmp_path / "mlmon.yaml", {"CHAT": "slak://s3cret"})
    assert [fault.partition(": ")[2] for fault in caught.value.faults] == [
        "alerts.notify[0].apprise.urls: the URL in place 1 is none that Apprise knows"
    ]
