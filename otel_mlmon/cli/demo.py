"""`otel-mlmon demo`: shows how drift of a real model is detected, on this machine and in less than a minute.

Two child processes run: the served model (`otel_mlmon.demo.service`) and the processor, with OTLP over loopback
between them as in any installation. This process starts the acts, reads and shows the processor's API, and checks
that the expected alerts came.
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
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

from otel_mlmon.demo import story
from otel_mlmon.demo.child import ChildFailedError, ChildProcess, start_child_process
from otel_mlmon.errors import DependencyMissingError

HELP: Final = "show how drift of a real model is detected, on this machine and in less than a minute"
EXIT_CODES: Final = (
    "Exit codes: 0 every expected alert came, and no other; 1 not as expected; 2 a package that the demo needs is not "
    "installed."
)

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
"""Packages of the three processes beyond the core."""

WHERE_TO_LOOK: Final = (
    "\nWhere to look: `otel-mlmon demo --keep` leaves the processor's page open with this story.\n"
    "With a model of your own: `otel-mlmon processor`, and then http://127.0.0.1:8080/.\n"
    "`otel-mlmon doctor` says what to do next."
)

Show = Callable[[story.ApiSnapshot, story.DemoAct], None]
"""A function that shows a moment."""

Stay = Callable[[story.DemoOutcome, str], None]
"""A function that is called after the story, with the outcome and the address of the page."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `otel-mlmon demo`."""
    ending = parser.add_mutually_exclusive_group()
    ending.add_argument("--json", action="store_true", help="print one JSON document in place of the screen")
    ending.add_argument(
        "--keep", action="store_true", help="leave the processor's page open with the story's data, until Ctrl-C"
    )
    parser.add_argument(
        "--seconds-per-act",
        type=_parse_positive_number,
        default=SECONDS_PER_ACT,
        metavar="S",
        help="length of an act in seconds (default: %(default)g); the demo takes at most seven times this",
    )


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `otel-mlmon demo`, which shows how drift of a model is detected, and returns the exit code.

    Raises:
        DependencyMissingError: A package is not installed.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; the children have ended.
    """
    check_required_modules(REQUIRED_MODULES)
    with _interrupt_on_sigterm(), tempfile.TemporaryDirectory(prefix="otel-mlmon-demo-") as folder:
        stay = _serve_demo_page if arguments.keep else None
        outcome, record = perform_demo(Path(folder), arguments.seconds_per_act, is_shown=not arguments.json, stay=stay)
    if arguments.json:
        print(json.dumps(outcome.to_dict() | record, indent=2, ensure_ascii=False))
    elif not arguments.keep or not outcome.has_passed:
        from otel_mlmon.demo import view

        print(view.format_demo_outcome(outcome))
        print(WHERE_TO_LOOK)
    return 0 if outcome.has_passed else 1


def check_required_modules(modules: Iterable[str]) -> None:
    """Checks that all Python packages that the demo needs are installed.

    Raises:
        DependencyMissingError: Some are not; names them, and what to do.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise DependencyMissingError(f'The demo needs {", ".join(missing)}: pip install "otel-mlmon[all]"')


def perform_demo(
    folder: Path, seconds_per_act: float, *, is_shown: bool, stay: Stay | None = None
) -> tuple[story.DemoOutcome, dict[str, Any]]:
    """Starts the demo's processes, plays its acts, checks the alerts that came, and ends the processes.

    The standard error of the processes is printed if the outcome is not as expected.

    Args:
        folder: The folder for the children's configuration, state and output.
        seconds_per_act: See `story.plan_acts`.
        is_shown: Whether to show the moments.
        stay: Called after the story while the processes run on, with the outcome and the address of the page.

    Returns:
        The outcome, and the observations behind it as a JSON object.
    """
    children: list[ChildProcess] = []
    record: dict[str, Any] = {}
    try:
        with ExitStack() as stack:
            address = _start_demo_processes(stack, children, folder)
            read = stack.enter_context(open_snapshot_reader(f"http://{address}"))
            with _open_demo_screen() if is_shown else nullcontext(_show_nothing) as show:
                moments, acts = _play_demo_acts(children, read, seconds_per_act, show)
            outcome, last = story.check_alerts(moments), moments[-1]
            if stay is not None:
                stay(outcome, f"http://{address}/")
            service = children[-1]
            service.close_input()
            served = service.wait_for_event("done", timeout_s=ANSWER_S)["predictions"]
            record = {"acts": acts, "served": served, "model": last.model, "alerts": list(last.alerts)}
    except ChildFailedError as error:
        outcome = story.DemoOutcome(problems=(str(error),), alerts=())
    if not outcome.has_passed:
        for child in children:
            print(f"--- standard error of the {child.name}:\n{child.read_output('stderr')[-4000:]}", file=sys.stderr)
    return outcome, record


def build_demo_config(state: Path) -> dict[str, Any]:
    """Builds the processor's configuration for the demo: free ports on this machine, and short windows.

    Args:
        state: The folder for its state.
    """
    return {
        "receiver": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
        "web": {"listen": "127.0.0.1:0"},
        "storage": {"path": str(state)},
        "windows": {"pane": "500ms", "lateness": "500ms", "rolling": "5s"},
        "alerts": {"false_alarms": "1 per 30d", "keep_firing_for": "0s"},
        "models": {"*": {"reference": {"learn": 2000}}},
    }


def build_child_environment(inherited: Mapping[str, str], *, endpoint: str | None = None) -> dict[str, str]:
    """Builds the environment variables of a child process, without the settings of the user's own telemetry.

    Args:
        inherited: The environment of this process.
        endpoint: The address for the child's telemetry; None for a child without.
    """
    prefixes = ("OTEL_", "SENTRY_")
    environ = {name: value for name, value in inherited.items() if not name.startswith(prefixes)}
    # A proxy must not be used on this machine; gRPC has a variable of its own.
    environ |= dict.fromkeys(("no_grpc_proxy", "no_proxy", "NO_PROXY"), "127.0.0.1")
    if endpoint is not None:
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
        environ["OTEL_METRIC_EXPORT_INTERVAL"] = str(EXPORT_INTERVAL_MS)
        environ["OTEL_SERVICE_NAME"] = "digits"
    return environ


def _start_demo_processes(stack: ExitStack, children: list[ChildProcess], folder: Path) -> str:
    """Starts the processor and the application of the demo; returns the address of the processor's API."""
    config = folder / "mlmon.yaml"
    # Every JSON document is a YAML document.
    config.write_text(json.dumps(build_demo_config(folder / "state"), indent=2))

    def start_process(name: str, arguments: Sequence[str], endpoint: str | None = None) -> ChildProcess:
        command = [sys.executable, "-m", *arguments]
        environ = build_child_environment(os.environ, endpoint=endpoint)
        child = stack.enter_context(start_child_process(name, command, folder=folder, environ=environ))
        children.append(child)
        return child

    processor = start_process("processor", ["otel_mlmon", "processor", "--config", str(config), "--ready-json"])
    addresses = processor.wait_for_event("ready", timeout_s=READY_S)
    service = start_process("service", ["otel_mlmon.demo.service"], f"http://{addresses['grpc']}")
    service.wait_for_event("ready", timeout_s=READY_S)
    return str(addresses["web"])


def _play_demo_acts(
    children: Sequence[ChildProcess], read: Callable[[str], story.ApiSnapshot], seconds_per_act: float, show: Show
) -> tuple[list[story.ApiSnapshot], list[dict[str, Any]]]:
    _, service = children
    acts: list[dict[str, Any]] = []

    def begin_act(act: story.DemoAct) -> None:
        service.send_input_line(act.name)
        acts.append({"act": act.name, "at_ns": time.time_ns()})

    def observe_act(act: story.DemoAct) -> story.ApiSnapshot:
        for child in children:
            child.check_running()
        moment = read(act.name)
        show(moment, act)
        return moment

    moments = story.play_acts(
        story.plan_acts(seconds_per_act), begin=begin_act, observe=observe_act, pause=lambda: time.sleep(POLL_S)
    )
    return moments, acts


def _serve_demo_page(outcome: story.DemoOutcome, address: str) -> None:
    """Prints the address of the processor's web page, and keeps the demo's processor running until Ctrl-C."""
    from otel_mlmon.demo import view

    print(view.format_demo_outcome(outcome))
    print(f"\nLook at {address}: the alerts of the story, since when, and what to do. Ctrl-C ends it.", flush=True)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()


@contextmanager
def open_snapshot_reader(address: str) -> Iterator[Callable[[str], story.ApiSnapshot]]:
    """Yields a function that reads the documents of model and alerts from the processor's API.

    It raises `ChildFailedError` if the processor does not answer, or with an error.
    """
    import httpx

    with httpx.Client(base_url=address, timeout=ANSWER_S, trust_env=False) as client:

        def read_snapshot(act: str) -> story.ApiSnapshot:
            try:
                model = client.get("/api/v1/models/digits")
                alerts = client.get("/api/v1/alerts").raise_for_status()
                is_known = model.status_code != httpx.codes.NOT_FOUND
                document = model.raise_for_status().json() if is_known else None
            except httpx.HTTPError as error:
                raise ChildFailedError(f"The processor does not answer: {error}") from error
            return story.ApiSnapshot(
                at_ns=time.time_ns(), act=act, model=document, alerts=tuple(alerts.json()["alerts"])
            )

        yield read_snapshot


@contextmanager
def _open_demo_screen() -> Iterator[Show]:
    """Shows the demo live on the screen of a terminal, or line by line where there is none."""
    from rich.console import Console
    from rich.live import Live

    from otel_mlmon.demo import view

    console = Console()
    if not console.is_terminal:
        yield LinePrinter()
        return
    news = story.AlertFeed()
    began_s = time.monotonic()
    with Live(console=console, auto_refresh=False) as live:

        def show_snapshot(moment: story.ApiSnapshot, act: story.DemoAct) -> None:
            for alert in news.take_new_alerts(moment):
                live.console.print(alert["text"], markup=False, highlight=False)
            live.update(view.render_screen(moment, act, time.monotonic() - began_s), refresh=True)

        yield show_snapshot


class LinePrinter:
    """Prints the state of the demo as a line a second, and new alerts in full, for pipes and logs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._alerts = story.AlertFeed()
        self._began_s = clock()
        self._act = ""
        self._next_s = 0.0

    def __call__(self, moment: story.ApiSnapshot, act: story.DemoAct) -> None:
        """Prints the state of the demo as a line, at most once a second, and its new alerts."""
        from otel_mlmon.demo import view

        elapsed_s = self._clock() - self._began_s
        if act.name != self._act:
            self._act, self._next_s = act.name, elapsed_s
            print(f"--- {act.headline}", flush=True)
        for alert in self._alerts.take_new_alerts(moment):
            print(alert["text"], flush=True)
        if elapsed_s >= self._next_s:
            self._next_s = elapsed_s + PLAIN_LINE_S
            print(view.format_status_line(moment, act, elapsed_s), flush=True)


def _show_nothing(moment: story.ApiSnapshot, act: story.DemoAct) -> None:
    """Shows nothing of the demo while it runs, since `--json` prints the outcome only."""


@contextmanager
def _interrupt_on_sigterm() -> Iterator[None]:
    """Makes SIGTERM end the demo and its child processes, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    handler = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _parse_positive_number(text: str) -> float:
    value = float(text)
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return value
