"""The processor, the disk or the Collector fails: what is yours is untouched, what is ours waits or is counted."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.collector import (
    CONFIGURATIONS,
    Collector,
    Sender,
    collector,
    counted_predictions,
    received_points,
    sender,
)
from tests.support.otlp_server import OtlpServer
from tests.support.processes import Processor, until
from tests.support.programs import program, require_root

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

WINDOWS = {"windows": {"pane": "500ms", "lateness": "5s", "rolling": "10s"}}


def away(directory: Path) -> Processor:
    """A processor that does not run yet."""
    directory.mkdir(parents=True, exist_ok=True)
    return Processor(directory=directory, overrides=WINDOWS)


def backend_points(server: OtlpServer) -> int:
    return sum(1 for _, metric, _ in server.points() if metric.name == "ml.predictions")


def is_through(agent: Collector, app: Sender) -> Callable[[], bool]:
    """Whether everything that was sent waits on disk or was counted as lost."""
    return lambda: agent.waiting_points() + agent.lost_points() == app.points


def test_a_processor_that_is_away_longer_than_the_queue_lasts_costs_only_its_own_telemetry(tmp_path: Path) -> None:
    late = away(tmp_path / "processor")
    environ = {"MLMON_ENDPOINT": f"127.0.0.1:{late.grpc}", "MLMON_QUEUE_BYTES": "1000000"}
    with (
        OtlpServer() as backend,
        collector(tmp_path / "agent", backend.grpc_address, environ=environ, configs=small_tap(tmp_path)) as agent,
        sender(agent.grpc) as app,
    ):
        send_until_lost(app, agent)
        until(lambda: backend_points(backend) == app.points, what="the back-end has everything")
        assert app.slowest_s < 2
        assert agent.value("receiver_refused_metric_points", receiver="otlp") == 0
        late.start()
        try:
            until(
                lambda: received_points(late) + agent.lost_points() == app.points,
                what="sent is received or counted as lost",
            )
            lost = agent.lost_points()
            app.send(labels=1000)
            until(lambda: received_points(late) + lost == app.points, what="what comes now is taken")
            assert agent.lost_points() == lost
        finally:
            assert late.stop() == 0


def small_tap(directory: Path) -> tuple[Path, Path]:
    """agent.yaml with less room in memory, so that a test can fill it."""
    overlay = directory / "small.yaml"
    overlay.write_text("exporters: {otlp_grpc/tap: {sending_queue: {queue_size: 500000}}}\n")
    return CONFIGURATIONS / "agent.yaml", overlay


@pytest.mark.parametrize("ending", [Collector.stop, Collector.kill], ids=["SIGTERM", "kill -9"])
def test_what_waits_for_a_processor_survives_the_end_of_the_collector(
    ending: Callable[[Collector], object], tmp_path: Path
) -> None:
    late = away(tmp_path / "processor")
    with (
        OtlpServer() as backend,
        collector(
            tmp_path / "agent", backend.grpc_address, environ={"MLMON_ENDPOINT": f"127.0.0.1:{late.grpc}"}
        ) as agent,
    ):
        with sender(agent.grpc) as app:
            for _ in range(110):
                app.send()
            until(is_through(agent, app), what="everything is on disk")
        ending(agent)
        agent.start()
        late.start()
        try:
            until(lambda: received_points(late) == 1100, what="110 of 110 requests")
            until(lambda: counted_predictions(late) == app.predictions == 11_000, what="each is counted once")
        finally:
            assert late.stop() == 0


def test_a_processor_that_is_killed_again_and_again_counts_each_prediction_once(tmp_path: Path) -> None:
    service = away(tmp_path / "processor")
    service.start()
    with (
        OtlpServer() as backend,
        collector(
            tmp_path / "agent", backend.grpc_address, environ={"MLMON_ENDPOINT": f"127.0.0.1:{service.grpc}"}
        ) as agent,
        sender(agent.grpc) as app,
    ):
        try:
            for _ in range(3):
                for _ in range(30):
                    app.send()
                service.kill()
                for _ in range(30):
                    app.send()
                service.start()
            until(lambda: counted_predictions(service) == app.predictions, what="sent is counted", deadline_s=60)
            assert agent.lost_points() == 0
            until(lambda: backend_points(backend) == app.points, what="the back-end has everything")
        finally:
            service.kill()


def test_a_full_disk_costs_only_our_own_telemetry(tmp_path: Path) -> None:
    late = away(tmp_path / "processor")
    folder = tmp_path / "agent" / "queue"
    with (
        OtlpServer() as backend,
        collector(
            tmp_path / "agent",
            backend.grpc_address,
            environ={"MLMON_ENDPOINT": f"127.0.0.1:{late.grpc}"},
            configs=small_tap(tmp_path),
            prefix=mounted(disk(tmp_path, mebibytes=32), folder),
        ) as agent,
        sender(agent.grpc) as app,
    ):
        inside(agent, "dd", "if=/dev/zero", f"of={folder}/ballast", "bs=1M", "count=24")
        send_until_lost(app, agent)
        until(lambda: backend_points(backend) == app.points, what="the back-end has everything")
        assert agent.value("receiver_refused_metric_points", receiver="otlp") == 0
        assert app.slowest_s < 2
        inside(agent, "rm", f"{folder}/ballast")
        late.start()
        try:
            with sender(agent.grpc) as again:
                again.send(models=["after"])
                until(lambda: counted_predictions(late, "after") == 100, what="it goes on with room", deadline_s=120)
            assert counted_predictions(late) <= app.predictions
        finally:
            assert late.stop() == 0


def test_a_disk_that_stalls_stalls_only_our_own_telemetry(tmp_path: Path) -> None:
    late = away(tmp_path / "processor")
    late.start()
    folder = tmp_path / "agent" / "queue"
    with (
        OtlpServer() as backend,
        collector(
            tmp_path / "agent",
            backend.grpc_address,
            environ={"MLMON_ENDPOINT": f"127.0.0.1:{late.grpc}"},
            prefix=mounted(disk(tmp_path, mebibytes=64), folder),
        ) as agent,
        sender(agent.grpc) as app,
    ):
        app.send()
        until(lambda: received_points(late) == app.points, what="it works")
        inside(agent, "fsfreeze", "-f", str(folder))
        try:
            for _ in range(100):
                app.send()
            until(lambda: backend_points(backend) == app.points, what="the back-end has everything")
            assert app.slowest_s < 2
        finally:
            inside(agent, "fsfreeze", "-u", str(folder))
        until(lambda: counted_predictions(late) == app.predictions, what="nothing was lost", deadline_s=60)
        assert late.stop() == 0


def send_until_lost(app: Sender, agent: Collector) -> None:
    """Send until a good deal did not fit."""

    def is_lost() -> bool:
        app.send(labels=1000)
        return agent.lost_points() > 20_000

    until(is_lost, what="the queue is full", deadline_s=60)


def inside(agent: Collector, *words: str) -> None:
    """Run a command where the Collector's mounts are."""
    nsenter = program("nsenter", "apt-get install util-linux")
    assert agent.child is not None
    subprocess.run([nsenter, "-m", "-t", str(agent.child.pid), *words], check=True, capture_output=True)


def disk(directory: Path, *, mebibytes: int) -> Path:
    """An empty file system of that size, in a file."""
    require_root()
    mkfs = program("mkfs.ext4", "apt-get install e2fsprogs")
    image = directory / "disk"
    with image.open("wb") as file:
        file.truncate(mebibytes << 20)
    subprocess.run([mkfs, "-q", "-O", "^has_journal", image], check=True)
    return image


def mounted(image: Path, folder: Path) -> list[str | Path]:
    """A prefix that runs a command with the file system mounted, for that command alone."""
    folder.mkdir(parents=True)
    script = 'mount -o loop "$1" "$2" && shift 2 && exec "$@"'
    return [program("unshare", "apt-get install util-linux"), "-m", "sh", "-c", script, "sh", image, folder]


def beginning(content: bytes) -> bytes:
    return b"\xa5" * 10_000 + content[10_000:]


def cut_off(content: bytes) -> bytes:
    return content[:100]


def middle(content: bytes) -> bytes:
    return content[:8192] + b"\xa5" * (len(content) - 8192)


@pytest.mark.parametrize("damage", [beginning, cut_off, middle])
def test_a_damaged_queue_file_is_put_aside_as_the_unit_does_and_the_collector_starts(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    late = away(tmp_path / "processor")
    with (
        OtlpServer() as backend,
        collector(
            tmp_path / "agent", backend.grpc_address, environ={"MLMON_ENDPOINT": f"127.0.0.1:{late.grpc}"}
        ) as agent,
    ):
        with sender(agent.grpc) as app:
            app.send(labels=1000)
            until(is_through(agent, app), what="it is on disk")
        assert agent.stop() == 0
        (file,) = agent.queue.glob("*metrics*")
        file.write_bytes(damaged := damage(file.read_bytes()))
        said = check_queue(agent)
        if damage is middle:  # found by the Collector itself, which ends
            assert said == ""
            with pytest.raises(AssertionError, match="panic: "):
                agent.start()
            assert agent.child is not None
            said = check_queue(agent, str(agent.child.wait()))
        assert "put aside" in said
        agent.start()
        late.start()
        try:
            with sender(agent.grpc) as again:
                again.send(labels=7)
                until(lambda: received_points(late) == 7, what="it goes on with a new file")
                until(lambda: backend_points(backend) == 1007, what="the back-end has everything")
            assert damaged in [path.read_bytes() for path in agent.queue.glob("*.backup")]
        finally:
            assert late.stop() == 0


def check_queue(agent: Collector, *status: str) -> str:
    """Run the check of the systemd unit, before a start or after an exit with `status`; returns what it said."""
    script = str(CONFIGURATIONS / "systemd" / "queue-check.sh")
    done = subprocess.run(["sh", script, str(agent.queue), *status], check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_the_check_of_queue_files_leaves_good_ones_alone(tmp_path: Path) -> None:
    with OtlpServer() as backend, collector(tmp_path / "agent", backend.grpc_address) as agent:
        files = sorted(path.name for path in agent.queue.iterdir())
        assert len(files) == 2
        assert check_queue(agent) == ""
        assert sorted(path.name for path in agent.queue.iterdir()) == files


def test_two_exporters_may_wait_in_one_directory(tmp_path: Path) -> None:
    overlay = tmp_path / "both.yaml"
    overlay.write_text("exporters: {otlp_grpc/backend: {sending_queue: {storage: file_storage/mlmon}}}\n")
    late = away(tmp_path / "processor")
    with (
        OtlpServer() as backend,
        collector(
            tmp_path / "agent",
            "127.0.0.1:1",
            environ={"MLMON_ENDPOINT": f"127.0.0.1:{late.grpc}"},
            configs=(CONFIGURATIONS / "agent.yaml", overlay),
        ) as agent,
    ):
        with sender(agent.grpc) as app:
            for _ in range(20):
                app.send()
            until(is_through(agent, app), what="it is on disk")
        assert agent.stop() == 0
        assert {path.name.partition("_")[2] for path in agent.queue.iterdir()} >= {
            "otlp_grpc_mlmon_metrics", "otlp_grpc_backend_metrics",
        }  # fmt: skip
        agent.backend = backend.grpc_address
        agent.start()
        late.start()
        try:
            until(lambda: received_points(late) == 200, what="the processor has its own")
            until(lambda: backend_points(backend) == 200, what="the back-end has its own")
        finally:
            assert late.stop() == 0
