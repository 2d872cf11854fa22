"""`otel-mlmon demo`: a real model drifts, and is caught, on this machine and in less than a minute.

Two child processes: the served model (`otel_mlmon.demo.service`) and the processor, OTLP over loopback
between them as in any installation. This process changes the acts, reads the processor's API, shows it, and
judges.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from otel_mlmon.demo import story
from otel_mlmon.demo.child import Child, ChildFailedError, started
from otel_mlmon.errors import DependencyMissingError

NAME: Final = "demo"
HELP: Final = "watch a real model drift and be caught, in less than a minute"

SECONDS_PER_ACT: Final = 8.0
EXPORT_INTERVAL_MS: Final = 500
POLL_S: Final = 0.25
PLAIN_LINE_S: Final = 1.0
READY_S: Final = 20.0
ANSWER_S: Final = 5.0

REQUIRED_MODULES: Final = (
    "grpc",
    "httpx",
    "onnxruntime",
    "pydantic",
    "rich",
    "scipy",
    "starlette",
    "uvicorn",
    "yaml",
)
"""What the three processes need beyond the core."""

Show = Callable[[story.Moment, story.Act], None]
"""Puts a moment before the person who watches."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    parser.add_argument(
        "--seconds-per-act",
        type=_positive,
        default=SECONDS_PER_ACT,
        metavar="S",
        help="how long an act is given (default: %(default)g); the whole takes at most seven times this",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the demo: 0 if everything expected was seen, 1 if not.

    Raises:
        DependencyMissingError: It cannot run here.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the children have ended by then.
    """
    require(REQUIRED_MODULES)
    with _terminate_is_interrupt(), tempfile.TemporaryDirectory(prefix="otel-mlmon-demo-") as folder:
        verdict, observed = perform(Path(folder), arguments.seconds_per_act, is_shown=not arguments.json)
    if arguments.json:
        print(json.dumps(verdict.to_dict() | observed, indent=2, ensure_ascii=False))
    else:
        from otel_mlmon.demo import view

        print(view.verdict_text(verdict))
    return 0 if verdict.passed else 1


def require(modules: Iterable[str]) -> None:
    """Nothing, if all the modules are installed.

    Raises:
        DependencyMissingError: Not all are; says which, and what to do.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise DependencyMissingError(f'The demo needs {", ".join(missing)}: pip install "otel-mlmon[all]"')


def perform(folder: Path, seconds_per_act: float, *, is_shown: bool) -> tuple[story.Verdict, dict[str, Any]]:
    """Start the processes, play the story, judge it, end the processes.

    What the processes wrote to standard error is shown if the verdict is not what it should be.

    Args:
        folder: For the children's configuration, state and output.
        seconds_per_act: See `story.acts`.
        is_shown: Whether a person watches.

    Returns:
        The verdict, and what it rests on as a JSON document.
    """
    children: list[Child] = []
    observed: dict[str, Any] = {}
    try:
        with ExitStack() as stack:
            web = _start(stack, children, folder)
            show: Show = stack.enter_context(_screen()) if is_shown else _show_nothing
            read = stack.enter_context(reader(f"http://{web}"))
            verdict, observed = _play(children, read, seconds_per_act, show)
    except ChildFailedError as error:
        verdict = story.Verdict(missing=(str(error),), findings=())
    if not verdict.passed:
        for child in children:
            print(f"--- the {child.name} said:\n{child.output('stderr')[-4000:]}", file=sys.stderr)
    return verdict, observed


def processor_config(state: Path) -> dict[str, Any]:
    """The processor's configuration: free ports on loopback, and a small model's pace.

    Args:
        state: Where it keeps its state.
    """
    return {
        "receiver": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
        "web": {"listen": "127.0.0.1:0"},
        "storage": {"path": str(state)},
        "windows": {"pane": "500ms", "lateness": "500ms", "rolling": "5s"},
        "alerts": {"false_alarms": "1 per 30d"},
        "models": {"*": {"reference": {"learn": 2000}}},
    }


def environment(inherited: Mapping[str, str], *, endpoint: str | None = None) -> dict[str, str]:
    """A child's environment: what is inherited, but for the settings of the user's own telemetry.

    Args:
        inherited: This process's own.
        endpoint: Where the child's telemetry goes; None for a child that has none.
    """
    own = ("OTEL_", "SENTRY_")
    environ = {name: value for name, value in inherited.items() if not name.startswith(own)}
    # A proxy for the world outside must not catch what stays on this machine; gRPC has a variable of its own.
    environ |= dict.fromkeys(("no_grpc_proxy", "no_proxy", "NO_PROXY"), "127.0.0.1")
    if endpoint is not None:
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
        environ["OTEL_METRIC_EXPORT_INTERVAL"] = str(EXPORT_INTERVAL_MS)
        environ["OTEL_SERVICE_NAME"] = "digits"
    return environ


def _start(stack: ExitStack, children: list[Child], folder: Path) -> str:
    """Start processor and service, in this order; the address of the processor's API."""
    config = folder / "mlmon.yaml"
    # Every JSON document is a YAML document.
    config.write_text(json.dumps(processor_config(folder / "state"), indent=2))

    def start(name: str, arguments: Sequence[str], endpoint: str | None = None) -> Child:
        command = [sys.executable, "-m", *arguments]
        environ = environment(os.environ, endpoint=endpoint)
        child = stack.enter_context(started(name, command, folder=folder, environ=environ))
        children.append(child)
        return child

    processor = start("processor", ["otel_mlmon", "processor", "--config", str(config), "--ready-json"])
    addresses = processor.wait_for("ready", timeout_s=READY_S)
    service = start("service", ["otel_mlmon.demo.service"], f"http://{addresses['grpc']}")
    service.wait_for("ready", timeout_s=READY_S)
    return str(addresses["web"])


def _play(
    children: Sequence[Child], read: Callable[[str], story.Moment], seconds_per_act: float, show: Show
) -> tuple[story.Verdict, dict[str, Any]]:
    _, service = children
    acts: list[dict[str, Any]] = []

    def begin(act: story.Act) -> None:
        service.say(act.name)
        acts.append({"act": act.name, "at_ns": time.time_ns()})

    def look(act: story.Act) -> story.Moment:
        for child in children:
            child.check()
        moment = read(act.name)
        show(moment, act)
        return moment

    moments = story.play(story.acts(seconds_per_act), begin=begin, look=look, pause=lambda: time.sleep(POLL_S))
    service.hang_up()
    served = service.wait_for("done", timeout_s=ANSWER_S)["predictions"]
    last = moments[-1]
    observed = {"acts": acts, "served": served, "model": last.model, "alerts": list(last.alerts)}
    return story.judge(moments), observed


@contextmanager
def reader(address: str) -> Iterator[Callable[[str], story.Moment]]:
    """A function from the name of the act that is on to the moment, as the processor at `address` tells it.

    It raises `ChildFailedError` if the processor does not answer, or not with what it should.
    """
    import httpx

    with httpx.Client(base_url=address, timeout=ANSWER_S, trust_env=False) as client:

        def read(act: str) -> story.Moment:
            try:
                model = client.get("/api/v1/models/digits")
                alerts = client.get("/api/v1/alerts").raise_for_status()
                known = model.status_code != httpx.codes.NOT_FOUND
                document = model.raise_for_status().json() if known else None
            except httpx.HTTPError as error:
                raise ChildFailedError(f"The processor does not answer: {error}") from error
            return story.Moment(at_ns=time.time_ns(), act=act, model=document, alerts=tuple(alerts.json()["alerts"]))

        yield read


@contextmanager
def _screen() -> Iterator[Show]:
    """A live screen on a terminal, else lines."""
    from rich.console import Console
    from rich.live import Live

    from otel_mlmon.demo import view

    console = Console()
    if not console.is_terminal:
        yield Lines()
        return
    news = story.News()
    began_s = time.monotonic()
    with Live(console=console, auto_refresh=False) as live:

        def show(moment: story.Moment, act: story.Act) -> None:
            for alert in news.of(moment):
                live.console.print(alert["text"], markup=False, highlight=False)
            live.update(view.render(moment, act, time.monotonic() - began_s), refresh=True)

        yield show


class Lines:
    """Shows moments as lines, one a second, and whole alerts when they come: for pipes and logs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._news = story.News()
        self._began_s = clock()
        self._act = ""
        self._next_s = 0.0

    def __call__(self, moment: story.Moment, act: story.Act) -> None:
        """Print what is new in the moment."""
        from otel_mlmon.demo import view

        elapsed_s = self._clock() - self._began_s
        if act.name != self._act:
            self._act, self._next_s = act.name, elapsed_s
            print(f"--- {act.headline}", flush=True)
        for alert in self._news.of(moment):
            print(alert["text"], flush=True)
        if elapsed_s >= self._next_s:
            self._next_s = elapsed_s + PLAIN_LINE_S
            print(view.line(moment, act, elapsed_s), flush=True)


def _show_nothing(moment: story.Moment, act: story.Act) -> None:
    """For `--json`: nothing but the document is printed."""


@contextmanager
def _terminate_is_interrupt() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does, and so its children too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return value
