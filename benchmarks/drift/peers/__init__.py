"""The real libraries, each in an environment of its own under a cache directory.

What they share is the question, given as JSON to a script beside this file and answered as JSON: windows of labels
without drift, or a confidence that falls. A library that cannot be installed or run is left out, with the reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
INSTALL_S = 900.0
RUN_S = 300.0

PEERS: dict[str, tuple[str, ...]] = {
    "river": ("river==0.26.1",),
    "evidently": ("evidently==0.7.23", "pandas<3"),
    "nannyml": ("nannyml==0.13.1", "statsmodels", "scipy<1.16"),
    "alibi": ("alibi-detect==0.13.0",),
}
"""Script, and what it needs."""


def peers(cache: Path, seed: int, scale: float) -> Iterator[str]:
    """A table of what the libraries say."""
    yield "| library | question | answer |"
    yield "|---|---|---|"
    for name, needs in PEERS.items():
        print(f"{name} …", file=sys.stderr)
        try:
            answers = _ask(cache, name, needs, {"seed": seed, "runs": max(20, int(200 * scale))})
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            reason = getattr(error, "stderr", None) or str(error)
            yield f"| {', '.join(needs)} | – | skipped: {' '.join(str(reason).split())[-160:]} |"
            continue
        for question, answer in answers.items():
            yield f"| {', '.join(needs)} | {question} | {answer} |"


CACHE = Path(os.environ.get("MLMON_PEERS", Path.home() / ".cache" / "otel-mlmon-peers"))
"""Where the environments are made."""


def ask_installed(name: str, script: str, question: dict[str, Any]) -> dict[str, Any]:
    """Returns the answer of a script in the environment of a library, if it was made.

    Raises:
        OSError: It was not made; says by which command it is.
        subprocess.SubprocessError: The script failed.
        ValueError: It did not answer.
    """
    python = CACHE / name / "bin" / "python"
    if not python.exists():
        raise OSError(f"{name} is not installed: `python -m benchmarks.drift --peers` makes its environment")
    output = _run([str(python), str(HERE / script)], timeout_s=3 * RUN_S, stdin=json.dumps(question))
    answer: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return answer


def _ask(cache: Path, name: str, needs: tuple[str, ...], question: dict[str, Any]) -> dict[str, str]:
    """The answers of one library.

    Raises:
        subprocess.SubprocessError: It could not be installed, or its script failed.
        ValueError: Its script did not answer.
    """
    home = cache / name
    python = home / "bin" / "python"
    stamp = home / "installed"
    if not stamp.exists() or stamp.read_text() != "\n".join(needs):
        venv.create(home, with_pip=True, clear=True)
        _run([str(python), "-m", "pip", "install", "--quiet", *needs], timeout_s=INSTALL_S)
        stamp.write_text("\n".join(needs))
    script = HERE / f"ask_{name}.py"
    output = _run([str(python), str(script)], timeout_s=RUN_S, stdin=json.dumps(question))
    answers: dict[str, str] = json.loads(output.strip().splitlines()[-1])
    return answers


def _run(command: list[str], *, timeout_s: float, stdin: str = "") -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"NML_DISABLE_USAGE_LOGGING": "1", "DO_NOT_TRACK": "1"}
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=True, env=environment
    )
    return done.stdout
