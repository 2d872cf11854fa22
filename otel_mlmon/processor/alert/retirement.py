"""Decides when a model version is retired: it has no traffic any more while another version has some."""

from __future__ import annotations

from typing import Final

RETIRED_AFTER_S: Final = 300.0
"""How long a version has no traffic while another one has some until it is retired."""
RETIRED: Final = "This version is retired: it had no traffic for 5 minutes while another version had some."
"""Why its alerts end."""


def is_retired(data_ns: int, newest_ns: int, now_ns: int) -> bool:
    """Returns whether a version is retired.

    Args:
        data_ns: When it last had data, Unix nanoseconds.
        newest_ns: When any version of the model last had data.
        now_ns: The time.
    """
    return (now_ns - data_ns) / 1e9 >= RETIRED_AFTER_S > (now_ns - newest_ns) / 1e9
