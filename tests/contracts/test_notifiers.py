"""What holds for every notifier behind its delivery, each made as the service makes it; and how a package adds one."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from otel_mlmon.processor.config.section import ConfigSection
from otel_mlmon.processor.notify.delivery import AlertDelivery, DeliverySettings
from otel_mlmon.processor.notify.notifier import NOTIFIERS, EmitEvent, Notifier, PermanentError, TransientError
from tests.support.alerts import FIRING, RESOLVED
from tests.support.notifiers import DeadLetterList, ScriptedNotifier
from tests.support.packages import install, run_beside
from tests.support.processes import until
from tests.support.sentry_endpoint import items_of
from tests.support.webhook_server import Answer, webhook_server

QUICK = DeliverySettings(timeout_s=3.0, backoff_s=0.001, max_backoff_s=0.002, breaker_open_s=0.001)


@dataclass(frozen=True)
class Recipient:
    """A notifier, and the states of the alerts that arrived, once there are so many."""

    notifier: Notifier
    wait_for: Callable[[int], list[str]]
    come_back: Callable[[], None] = lambda: None
    """Ends the fault `away`."""


Make = Callable[[str], Recipient]


class ScriptedHandler(logging.Handler):
    """A log one can wait for; its faults are those of `script`."""

    def __init__(self, script: ScriptedNotifier) -> None:
        super().__init__()
        self.script = script

    def handle(self, record: logging.LogRecord) -> bool:
        """Without logging's own lock, which would hang every other line with the one that hangs."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        self.script.notify(FIRING if "FIRING" in record.getMessage() else RESOLVED)


def create(name: str, section: dict[str, Any], emit_event: EmitEvent | None = None) -> Notifier:
    notifier_type = NOTIFIERS.load_plugin(name)
    notifier = notifier_type.create(notifier_type.section_type.model_validate(section), emit_event)
    assert notifier is not None
    return notifier


def script_of(fault: str, gate: threading.Event) -> ScriptedNotifier:
    faults: dict[str, list[Exception | threading.Event]] = {
        "none": [],
        "transient": [TransientError("HTTP 503")],
        "permanent": [PermanentError("HTTP 404")],
        "hang": [gate],
        "away": [TransientError("away")] * 1000,
    }
    return ScriptedNotifier(faults[fault])


def make_log(fault: str, gate: threading.Event, stack: ExitStack) -> Recipient:
    script, logger = script_of(fault, gate), logging.getLogger("otel_mlmon.alerts")
    handler, level = ScriptedHandler(script), logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    stack.callback(logger.setLevel, level)
    stack.callback(logger.removeHandler, handler)
    return Recipient(create("log", {}), states_of(script), script.script.clear)


def make_otlp(fault: str, gate: threading.Event, stack: ExitStack) -> Recipient:
    del stack
    script = script_of(fault, gate)
    notifier = create("otlp", {}, lambda *event: script.notify(FIRING if event[1] == "ERROR" else RESOLVED))
    return Recipient(notifier, states_of(script), script.script.clear)


class Server:
    """An HTTP receiver with a fault at the first request, or until it comes back."""

    def __init__(self, fault: str, stack: ExitStack, read: Callable[[bytes], str | None]) -> None:
        status = {"transient": 503, "permanent": 404, "away": 503}.get(fault, 200)
        answers = [Answer(status=status, waits=fault == "hang")]
        self.http = stack.enter_context(webhook_server(*answers, *([] if fault == "away" else [Answer()])))
        self.read = read
        self.refused = int(fault in ("transient", "permanent"))

    def come_back(self) -> None:
        with self.http.changed:
            self.http.answers[:] = [Answer()]
            self.refused = len(self.http.received)

    def list_states(self) -> list[str]:
        requests = list(self.http.received)[self.refused :]
        return [state for state in (self.read(request.body) for request in requests) if state is not None]

    def states(self, count: int) -> list[str]:
        return until(lambda: states if len(states := self.list_states()) >= count else None, what="alerts")


def make_webhook(fault: str, gate: threading.Event, stack: ExitStack) -> Recipient:
    del gate
    server = Server(fault, stack, lambda body: json.loads(body)["state"])
    return Recipient(create("webhook", {"url": server.http.url, "timeout": "30s"}), server.states, server.come_back)


def make_alertmanager(fault: str, gate: threading.Event, stack: ExitStack) -> Recipient:
    del gate

    def read(body: bytes) -> str:
        now = datetime.now(tz=timezone.utc)
        return "firing" if datetime.fromisoformat(json.loads(body)[0]["endsAt"]) > now else "ok"

    server = Server(fault, stack, read)
    section = {"urls": [server.http.url.removesuffix("/hook")], "timeout": "30s", "renew_every": "1h"}
    return Recipient(create("alertmanager", section), server.states, server.come_back)


def make_sentry(fault: str, gate: threading.Event, stack: ExitStack) -> Recipient:
    """Sentry's protocol: the beginning is an event, the end a check-in."""
    del gate

    def read(body: bytes) -> str | None:
        ((kind, payload),) = items_of(body)
        if kind == "event":
            return str(payload["tags"]["ml.alert.state"])
        return "ok" if payload["status"] == "ok" else None

    server = Server(fault, stack, read)
    dsn = server.http.url.replace("//", "//key@").replace("/hook", "/1")
    return Recipient(create("sentry", {"dsn": dsn, "timeout": "30s"}), server.states, server.come_back)


def make_apprise(fault: str, gate: threading.Event, stack: ExitStack) -> Recipient:
    del gate
    server = Server(fault, stack, lambda body: {"failure": "firing", "success": "ok"}[json.loads(body)["type"]])
    section = {"urls": [server.http.url.replace("http:", "json:")], "timeout": "30s"}
    return Recipient(create("apprise", section), server.states, server.come_back)


PROGRAM = """
import json, os, sys, time
folder, fault = sys.argv[1:]
alert = json.load(sys.stdin)
if fault == "away" and not os.path.exists(folder + "/released"):
    sys.exit(75)
if not os.path.exists(folder + "/begun"):
    open(folder + "/begun", "w").close()
    if fault in ("transient", "permanent"):
        sys.exit({"transient": 75, "permanent": 1}[fault])
    while fault == "hang" and not os.path.exists(folder + "/released"):
        time.sleep(0.01)
with open(folder + "/states", "a") as file:
    file.write(alert["state"] + "\\n")
"""


def make_command(fault: str, gate: threading.Event, stack: ExitStack) -> Recipient:
    folder = Path(stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True)))
    stack.callback((folder / "released").touch)
    run = [sys.executable, "-c", PROGRAM, str(folder), fault]

    def states(count: int) -> list[str]:
        if fault == "hang":
            until(lambda: (folder / "states").exists())  # the second run does not wait for the first
            (folder / "released").touch()
        until(lambda: (folder / "states").exists() and len((folder / "states").read_text().split()) >= count)
        return (folder / "states").read_text().split()

    return Recipient(create("command", {"run": run, "timeout": "60s"}), states, (folder / "released").touch)


def states_of(script: ScriptedNotifier) -> Callable[[int], list[str]]:
    return lambda count: [alert.state.value for alert in script.wait_for(count)]


RECIPIENTS = {"log": make_log, "otlp": make_otlp, "webhook": make_webhook, "alertmanager": make_alertmanager,
              "command": make_command, "sentry": make_sentry, "apprise": make_apprise}  # fmt: skip


@pytest.fixture(params=NOTIFIERS.list_names())
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes the notifier with a fault at the first attempt; a new one needs an entry in `RECIPIENTS`."""
    gate = threading.Event()
    with ExitStack() as stack:
        stack.callback(gate.set)
        yield lambda fault: RECIPIENTS[request.param](fault, gate, stack)


@pytest.mark.parametrize("name", NOTIFIERS.list_names())
def test_its_section_explains_itself(name: str) -> None:
    section_type = NOTIFIERS.load_plugin(name).section_type
    assert issubclass(section_type, ConfigSection)
    assert section_type.__doc__
    assert all(field.description for field in section_type.model_fields.values())


def run(recipient: Recipient, letters: DeadLetterList) -> AlertDelivery:
    delivery = AlertDelivery(recipient.notifier, name="n", dead_letters=letters, settings=QUICK)
    delivery.start()
    delivery.submit(FIRING)
    delivery.submit(RESOLVED)
    return delivery


def test_it_delivers_in_order(make: Make) -> None:
    letters = DeadLetterList()
    recipient = make("none")
    delivery = run(recipient, letters)
    assert recipient.wait_for(2) == ["firing", "ok"]
    assert delivery.shutdown(10)
    assert (delivery.outcomes(), letters.letters) == ({"delivered": 2}, [])


def test_after_a_transient_fault_it_is_attempted_again_and_sent_once(make: Make) -> None:
    letters = DeadLetterList()
    recipient = make("transient")
    delivery = run(recipient, letters)
    assert recipient.wait_for(2) == ["firing", "ok"]
    assert delivery.shutdown(10)
    assert (delivery.outcomes(), letters.letters) == ({"transient": 1, "delivered": 2}, [])


def test_a_permanent_fault_is_a_dead_letter_and_the_next_alert_is_sent(make: Make) -> None:
    letters = DeadLetterList()
    recipient = make("permanent")
    delivery = run(recipient, letters)
    assert recipient.wait_for(1) == ["ok"]
    assert delivery.shutdown(10)
    assert [(alert, reason) for alert, _, reason, _ in letters.letters] == [(FIRING, "permanent")]


def test_those_that_hang_run_into_their_time_out_and_the_others_do_not_wait() -> None:
    """All of them hang at once, beside one that does not."""
    letters, other, gate = DeadLetterList(), ScriptedNotifier(), threading.Event()
    neighbour = AlertDelivery(other, name="other", dead_letters=letters, settings=QUICK)
    neighbour.start()
    with ExitStack() as stack:
        stack.callback(gate.set)
        recipients = {name: RECIPIENTS[name]("hang", gate, stack) for name in NOTIFIERS.list_names()}
        deliveries = {name: run(recipient, letters) for name, recipient in recipients.items()}
        neighbour.submit(FIRING)
        assert other.wait_for(1) == [FIRING]
        for recipient in recipients.values():
            recipient.wait_for(2)
        assert [name for name, delivery in deliveries.items() if not delivery.shutdown(30)] == []
        assert neighbour.shutdown(30)
    outcomes = {name: delivery.outcomes() for name, delivery in deliveries.items()}
    assert outcomes == {name: {"timeout": 1, "delivered": 2} for name in recipients}


class Hours:
    """A clock that waiting moves, and that stops at a time."""

    def __init__(self, stops_s: float) -> None:
        self.now_s, self.stops_s = 0.0, stops_s
        self.reached, self.goes_on = threading.Event(), threading.Event()

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        if self.now_s >= self.stops_s:
            self.reached.set()
            self.goes_on.wait(30)


def test_after_ten_minutes_away_and_a_restart_between_it_gets_what_holds_once(make: Make) -> None:
    letters, clock = DeadLetterList(), Hours(600.0)
    settings = DeliverySettings(backoff_s=200.0, max_backoff_s=200.0)
    recipient = make("away")
    before = AlertDelivery(
        recipient.notifier,
        name="n",
        dead_letters=letters,
        settings=settings,
        clock=lambda: clock.now_s,
        wait=clock.wait,
    )
    before.start()
    before.submit(FIRING)
    assert clock.reached.wait(60)
    before.shutdown(0.0)
    clock.goes_on.set()
    assert not before.shutdown(30)  # it stays in the outbox
    recipient.come_back()
    after = AlertDelivery(recipient.notifier, name="n", dead_letters=letters, settings=QUICK)
    after.submit(FIRING, age_s=600.0)
    after.submit(RESOLVED)
    after.start()
    assert recipient.wait_for(1) == ["ok"]  # nobody is told that it fires when it is over
    assert after.shutdown(30)
    assert (recipient.wait_for(1), letters.letters) == (["ok"], [])


ADDED_NOTIFIER = '''
from pathlib import Path

from pydantic import Field

from otel_mlmon.processor.alert.document import encode_alert
from otel_mlmon.processor.config.section import ConfigSection


class FileSection(ConfigSection):
    """Alerts as lines of a file."""

    path: Path = Field(description="The file.")


class FileNotifier:
    section_type = FileSection

    def __init__(self, path):
        self.path = path

    @classmethod
    def create(cls, section, emit_event):
        return cls(section.path)

    def notify(self, alert):
        with self.path.open("ab") as file:
            file.write(encode_alert(alert) + b"\\n")
'''

USE_OF_IT = """
import json
import time
from pathlib import Path

import httpx

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.config.load import load_config
from otel_mlmon.processor.config.render import render_default_yaml
from otel_mlmon.processor.service import Service
from otel_mlmon.testing import SimulatedProcessor
from otel_mlmon.testing.telemetry import MetricsRequestBuilder
from otel_mlmon.types import ModelKey

try:
    SimulatedProcessor({"alerts": {"notify": [{"file": {"pth": "x"}}]}})
except ConfigurationError as error:
    faults = sorted(fault.partition(": ")[2] for fault in error.faults)

configuration = {
    "receiver": {"grpc": "", "http": "127.0.0.1:0"},
    "web": {"listen": ""},
    "windows": {"pane": "200ms", "lateness": "0s", "rolling": "1s"},
    "alerts": {"notify": [{"file": {"path": "alerts.jsonl"}}]},
    "models": {"*": {"no_data": {"after": "500ms"}}},
}
Path("mlmon.yaml").write_text(json.dumps(configuration))
service = Service(load_config("mlmon.yaml", {}))
address = service.start().http
now_ns = time.time_ns()
telemetry = MetricsRequestBuilder(ModelKey("fraud", "1"), sender="s", start_ns=now_ns - 100_000_000, end_ns=now_ns)
telemetry.add_counter_point(PREDICTIONS, 10, {"ml.prediction.label": "ham"})
httpx.post(
    f"http://{address}/v1/metrics",
    content=telemetry.request.SerializeToString(),
    headers={"Content-Type": "application/x-protobuf"},
).raise_for_status()
deadline_s = time.monotonic() + 30
while not Path("alerts.jsonl").exists() and time.monotonic() < deadline_s:
    time.sleep(0.05)
service.shutdown(10)
alerts = [json.loads(line) for line in Path("alerts.jsonl").read_text().splitlines()]
print(json.dumps({"faults": faults, "defaults": render_default_yaml(), "alerts": alerts}))
"""


def test_a_package_adds_a_notifier_by_one_file_and_an_entry_point(tmp_path: Path) -> None:
    install(tmp_path, ADDED_NOTIFIER, group="otel_mlmon.notifiers", name="file", attribute="FileNotifier")
    result = run_beside(tmp_path, "from otel_mlmon.semconv import PREDICTIONS\n" + USE_OF_IT)
    assert result["faults"] == [
        "alerts.notify[0].file.path: is needed",
        "alerts.notify[0].file.pth: is not a known key (did you mean `path`?)",
    ]
    assert "`file: {path: …}`" in " ".join(result["defaults"].replace("#", " ").split())
    alert = result["alerts"][0]
    assert (alert["model"], alert["rule"], alert["state"]) == ("fraud", "no_data", "no_data")
