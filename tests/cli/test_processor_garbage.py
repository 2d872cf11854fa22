"""The processor's process looks for garbage in cycles seldom, and never in what was there when it started."""

from __future__ import annotations

import subprocess
import sys


def test_the_garbage_collector_of_a_processor_looks_seldom() -> None:
    program = (
        "import gc; from otel_mlmon.cli.processor import calm_garbage_collector; calm_garbage_collector();"
        "print(gc.isenabled(), gc.get_threshold(), gc.get_freeze_count() > 10_000)"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    assert done.stdout == "True (50000, 4, 200) True\n"


def test_the_garbage_collector_rests_while_state_is_loaded() -> None:
    program = """
import gc
from otel_mlmon.cli.processor import pause_garbage_collector
states = [gc.isenabled()]
try:
    with pause_garbage_collector():
        states.append(gc.isenabled())
        raise LookupError
except LookupError:
    states.append(gc.isenabled())
print(states)
"""
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    assert done.stdout == "[True, False, True]\n"
