"""What Sentry's own tools make of what we send: Spotlight shows it, Bugsink groups it, Relay normalises it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from otel_mlmon.processor.alert.alert import Alert, RuleState
from otel_mlmon.processor.notify.notifier import NOTIFIERS
from tests.support.alerts import FIRING, RESOLVED
from tests.support.ports import free_port
from tests.support.processes import environment, run_python, until
from tests.support.sentry_endpoint import endpoint

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".peers"


def peer(name: str) -> str:
    """A program of `make sentry-peers`; where there is none, a skip that says so. In CI that is a failure."""
    path = PEERS / name
    if not path.exists():
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say("no peers of Sentry's: make sentry-peers")
    return str(path)


HOST = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, onnxruntime as ort, sentry_sdk, otel_mlmon
from tests.support import models
sentry_sdk.init(**eval(sys.argv[2]))
handle = otel_mlmon.instrument(sentry_traces_sample_rate=1.0)
session = ort.InferenceSession(models.softmax(name="iris"))
price = ort.InferenceSession(models.regression())
session.run(None, {"input": np.array([[9, 0, 0, 0]], np.float32)})
price.run(None, {"input": np.ones((2, 2), np.float32)})
handle.flush(10)
with sentry_sdk.start_transaction(name="/predict", op="http.server"):
    session.run(None, {"input": np.array([[9, 0, 0, 0]], np.float32)})
    price.run(None, {"input": np.ones((2, 2), np.float32)})
session.run(None, {"input": np.array([[9, 0, 0, 0]], np.float32)})
for bad in (session, session, price):
    try:
        bad.run(None, {"input": np.zeros((3,), np.float32)})
    except Exception as error:
        if bad is price:
            sentry_sdk.set_tag("which", "price")
        sentry_sdk.capture_exception(error)
handle.flush(10)
sentry_sdk.flush(10)
"""


def run_host(dsn: str) -> None:
    """A program that predicts inside a transaction and outside, and fails three times, with Sentry at `dsn`."""
    off: Any = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    done = run_python(["-c", HOST, str(ROOT), repr({"dsn": dsn})], cwd=ROOT, **off)
    assert (done.returncode, done.stderr) == (0, "")


@contextmanager
def server(command: Sequence[str], cwd: Path, is_up: Callable[[], bool], **environ: str) -> Iterator[None]:
    """A peer's process, ended at the end."""
    with (cwd / "log.txt").open("w") as log:
        child = subprocess.Popen(command, cwd=cwd, stdout=log, stderr=log, env=environment(**environ))
        try:
            until(is_up, what=f"{command[0]} answers")
            yield
        finally:
            child.terminate()
            try:
                child.wait(timeout=2)
            except subprocess.TimeoutExpired:
                child.kill()  # Spotlight waits for whoever reads its stream
                child.wait(timeout=20)


def answers(url: str) -> bool:
    """Whether a server answers there."""
    try:
        return httpx.get(url, timeout=2, follow_redirects=True).status_code < 500
    except httpx.TransportError:
        return False


@pytest.fixture
def spotlight(tmp_path: Path) -> Iterator[int]:
    port = free_port()
    command = [peer("node_modules/.bin/spotlight"), "server", "-p", str(port)]
    with server(command, tmp_path, lambda: answers(f"http://127.0.0.1:{port}/health")):
        yield port


def envelopes(port: int) -> list[dict[str, Any]]:
    """The payloads that Spotlight replays."""
    payloads = []
    with httpx.stream("GET", f"http://127.0.0.1:{port}/stream", timeout=httpx.Timeout(5, read=1)) as answer:
        try:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    payloads += [payload for _, payload in json.loads(line.removeprefix("data: "))[1]]
        except httpx.ReadTimeout:
            pass  # it has said all it has, and waits for more
    return payloads


def test_spotlight_holds_the_inference_inside_its_transaction(spotlight: int) -> None:
    run_host(f"http://key@127.0.0.1:{spotlight}/1")
    found = [payload for payload in envelopes(spotlight) if payload.get("type") == "transaction"]
    (request,) = [event for event in found if event["transaction"] == "/predict"]
    trace = request["contexts"]["trace"]
    assert [
        (span["op"], span["description"], span["parent_span_id"], span["trace_id"]) for span in request["spans"]
    ] == [
        ("ml.predict", "predict iris", trace["span_id"], trace["trace_id"]),
        ("ml.predict", "predict price", trace["span_id"], trace["trace_id"]),
    ]
    assert {event["transaction"] for event in found} == {"/predict", "predict iris", "predict price"}


SHOOT = """
import sys
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=sys.argv[2], args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(f"http://127.0.0.1:{sys.argv[1]}/telemetry/traces", wait_until="domcontentloaded")
    page.get_by_text("/predict").first.click()
    page.get_by_text("ml.predict").first.click()
    page.get_by_text("ml.prediction.label").first.wait_for()
    page.screenshot(path=sys.argv[3])
    print(page.inner_text("body"))
    browser.close()
"""


def test_spotlight_shows_it(spotlight: int, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say("no browser: apt-get install chromium")
    run_host(f"http://key@127.0.0.1:{spotlight}/1")
    picture = tmp_path / "spotlight.png"
    command = [peer("venv/bin/python"), "-c", SHOOT, str(spotlight), str(chromium), str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True, env=environment())
    shown = done.stdout
    assert "predict iris" in shown
    assert "predict price" in shown
    assert 'ml.model.name:"iris"' in shown.replace(" ", "")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000


NORMALISE = """
import json, sys
from sentry_relay.processing import StoreNormalizer
normalizer = StoreNormalizer(project_id=1)
print(json.dumps([normalizer.normalize_event(event) for event in json.load(sys.stdin)]))
"""


def test_relay_has_nothing_to_object_to() -> None:
    python = peer("venv/bin/python")
    with endpoint() as sentry:
        run_host(sentry.dsn)
        events = [*sentry.wait("transaction", 7), *sentry.wait("event", 3)]
    done = subprocess.run(
        [python, "-c", NORMALISE], input=json.dumps(events), capture_output=True, text=True, timeout=60, check=True
    )
    normalised = json.loads(done.stdout)
    assert [event.get("errors") for event in normalised] == [None] * 10
    (request,) = [
        event for event in normalised if event["type"] == "transaction" and event["transaction"] == "/predict"
    ]
    assert [(span["op"], span["status"], span["origin"]) for span in request["spans"]] == [
        ("ml.predict", "ok", "auto.ml.otel_mlmon")
    ] * 2
    tags = [dict(event["tags"]) for event in normalised if event["type"] == "error"]
    assert [found["ml.model.name"] for found in tags] == ["iris", "iris", "price"]


@pytest.fixture
def bugsink(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The server's address and the header that opens its interface."""
    port = free_port()
    create, manage = peer("venv/bin/bugsink-create-conf"), peer("venv/bin/bugsink-manage")

    def run(*command: str) -> str:
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True, env=environment()
        ).stdout

    run(create, "--template=local", "--host=127.0.0.1", f"--port={port}")
    run(manage, "migrate")
    run(manage, "migrate", "snappea", "--database=snappea")
    token = run(manage, "create_auth_token").split()[-1]
    url = f"http://127.0.0.1:{port}"
    command = [peer("venv/bin/gunicorn"), "--bind", f"127.0.0.1:{port}", "bugsink.wsgi"]
    with server(command, tmp_path, lambda: answers(url), PYTHONPATH=str(tmp_path)):
        yield f"{url}/api/canonical/0", {"Authorization": f"Bearer {token}"}


class Project:
    """A new project of Bugsink."""

    def __init__(self, client: httpx.Client, url: str, name: str) -> None:
        self.client, self.url = client, url
        team = client.post(f"{url}/teams/", json={"name": name}).json()
        project = client.post(f"{url}/projects/", json={"name": name, "team": team["id"]}).json()
        self.id: str = project["id"]
        self.dsn: str = client.get(f"{url}/projects/{self.id}/").json()["dsn"]

    def issues(self) -> list[Any]:
        """All of its issues."""
        results: list[Any] = self.client.get(f"{self.url}/issues/", params={"project": self.id}).json()["results"]
        return results

    def events(self, count: int) -> list[Any]:
        """All of its events, once there are so many."""

        def list_events() -> list[Any]:
            pages = [
                self.client.get(f"{self.url}/events/", params={"issue": issue["id"]}).json() for issue in self.issues()
            ]
            results = [event for page in pages for event in page["results"]]
            return results if len(results) == count else []

        return [self.client.get(f"{self.url}/events/{event['id']}/").json()["data"] for event in until(list_events)]


def test_bugsink_has_an_issue_a_model(bugsink: tuple[str, dict[str, str]]) -> None:
    url, headers = bugsink
    with httpx.Client(headers=headers, timeout=20) as client:
        project = Project(client, url, "models")
        run_host(project.dsn)
        full = project.events(3)
    assert sorted(event["tags"]["ml.model.name"] for event in full) == ["iris", "iris", "price"]
    assert "ml.predict" not in json.dumps(full)


GROWN = replace(FIRING, previous=RuleState.FIRING, news=("severity",), sequence=2)
OTHER = replace(FIRING, rule="latency", title="latency", sequence=3)


def send_alerts(dsn: str, *alerts: Alert) -> None:
    notifier_type = NOTIFIERS.load_plugin("sentry")
    notifier = notifier_type.create(notifier_type.section_type.model_validate({"dsn": dsn}), None)
    assert notifier is not None
    for alert in alerts:
        notifier.notify(alert)


def test_bugsink_has_an_issue_a_rule_and_no_event_of_the_end(bugsink: tuple[str, dict[str, str]]) -> None:
    url, headers = bugsink
    with httpx.Client(headers=headers, timeout=20) as client:
        project = Project(client, url, "alerts")
        send_alerts(project.dsn, FIRING, FIRING, GROWN, RESOLVED, OTHER)  # an attempt is repeated
        events = project.events(3)
        assert sorted(event["tags"]["ml.alert.rule"] for event in events) == [
            "latency", "prediction_drift", "prediction_drift",
        ]  # fmt: skip
        assert sorted(issue["digested_event_count"] for issue in project.issues()) == [1, 2]


def test_relay_has_nothing_to_object_to_in_an_alert() -> None:
    python = peer("venv/bin/python")
    with endpoint() as sentry:
        send_alerts(sentry.dsn, FIRING, GROWN, RESOLVED)
        events = sentry.wait("event", 2)
        assert [check["status"] for check in sentry.wait("check_in", 2)] == ["error", "ok"]
    done = subprocess.run(
        [python, "-c", NORMALISE], input=json.dumps(events), capture_output=True, text=True, timeout=60, check=True
    )
    assert [(event.get("errors"), event["type"]) for event in json.loads(done.stdout)] == [(None, "default")] * 2
