"""Helps to test applications and configurations: what an application would send, and whether alerts would fire.

    with otel_mlmon.testing.capture() as captured:
        session.run(None, feed)
        captured.flush()
        assert captured.spans[0].attributes["ml.prediction.label"] == "cat"

    with otel_mlmon.testing.SimulatedProcessor({"models": {"*": {"reference": {"learn": 1000}}}}) as processor:
        for _ in range(60):
            processor.send_counts("fraud", labels={"ok": 95, "fraud": 5})
            processor.advance(10)
        for _ in range(60):
            processor.send_counts("fraud", labels={"ok": 70, "fraud": 30})
            processor.advance(10)
        assert processor.rule_state("fraud", "prediction_drift") == "firing"

`SimulatedProcessor` needs the extra `processor`; each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from otel_mlmon.testing.captured_signals import Captured, capture
    from otel_mlmon.testing.simulated_processor import SimulatedProcessor

__all__ = ["Captured", "SimulatedProcessor", "capture"]

_MODULES: Final = {
    "Captured": "otel_mlmon.testing.captured_signals",
    "SimulatedProcessor": "otel_mlmon.testing.simulated_processor",
    "capture": "otel_mlmon.testing.captured_signals",
}


def __getattr__(name: str) -> Any:
    """Imports a public name of `otel_mlmon.testing` when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Lists the public names of `otel_mlmon.testing`."""
    return sorted(__all__)
