"""`python -m benchmarks.gpu` where there is no CUDA provider."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from benchmarks.gpu import CUDA, NO_DEVICE


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this onnxruntime has a CUDA provider")
def test_without_a_cuda_provider_it_says_so_and_fails() -> None:
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, run.stdout) == (NO_DEVICE, "")
    assert run.stderr.startswith(
        f"No {CUDA} in onnxruntime {onnxruntime.__version__}: nothing was measured or checked."
    )
