"""Let the host's threads go first.

One thread at a time has the interpreter, and one that works without a pause keeps the others waiting, 5 ms by default
before it is asked to stop. Ours asks nobody to wait that long: it gives way between steps of some 0.1 ms.
"""

from __future__ import annotations

import time


def give_way() -> None:
    """Let a thread that waits for the interpreter have it.

    `time.sleep(0)` lets go of the interpreter and asks for it again. Source: Python documentation, `time.sleep`.
    """
    time.sleep(0)
