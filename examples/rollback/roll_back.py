"""Puts the version before back into service, once: the processor runs it for each alert (see mlmon.yaml).

`python roll_back.py models/current.json` reads the alert as JSON from its standard input. It rolls back if the alert is
about the version in service and fires for the first time, by `version_drift`, or by `errors` that began within
`--errors-within` of the deploy. It never does so twice within `--cool-down`, and never back to what it took out of
service. Whatever it decides it says; exit code 75 asks the processor to run it again.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import pointer

EX_TEMPFAIL = 75


def decide(alert: dict[str, Any], current: pointer.Pointer, *, errors_within_s: float, cool_down_s: float) -> str:
    """Returns why not to roll back; empty if it is time to."""
    if alert["is_test"]:
        return "this is a test"
    if alert["state"] != "firing" or alert["state"] == alert["previous"]:
        return f"{alert['rule']} is {alert['state']}, and no new alert"
    if alert["rule"] not in ("version_drift", "errors"):
        return f"{alert['rule']} is nothing that another version would mend"
    if alert["version"] != current.get("version"):
        return f"version {alert['version']} is not in service"
    if not current.get("previous"):
        return "there is no version before"
    began_s = (alert["onset_ns"] or alert["time_ns"]) / 1e9
    if alert["rule"] == "errors" and not 0 <= began_s - current["deployed_s"] <= errors_within_s:
        return "the errors did not begin with the deploy"
    if current["previous"] in current.get("taken_back", []):
        return f"version {current['previous']} was taken back itself"
    if time.time() - current.get("rolled_back_s", 0.0) < cool_down_s:
        return "a version was taken back a short while ago: this one is for a person"
    return ""


def main() -> int:
    """Reads an alert, and rolls back if that is what it asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pointer", type=Path)
    parser.add_argument("--errors-within", type=float, default=1800.0, metavar="SECONDS")
    parser.add_argument("--cool-down", type=float, default=3600.0, metavar="SECONDS")
    arguments = parser.parse_args()
    alert = json.load(sys.stdin)
    try:
        with pointer.lock(arguments.pointer):
            current = pointer.read(arguments.pointer)
            reason = decide(
                alert, current, errors_within_s=arguments.errors_within, cool_down_s=arguments.cool_down
            )  # fmt: skip
            if reason:
                print(f"Not rolled back: {reason}.")
                return 0
            pointer.write(
                arguments.pointer,
                {
                    "version": current["previous"],
                    "previous": None,
                    "deployed_s": time.time(),
                    "rolled_back_s": time.time(),
                    "taken_back": [*current.get("taken_back", []), current["version"]],
                },
            )
    except (OSError, ValueError) as error:
        print(f"The pointer cannot be changed: {error}")
        return EX_TEMPFAIL
    print(f"Rolled back from version {current['version']} to {current['previous']}: {alert['subject']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
