"""A classifier says its class in words, as scikit-learn's do; the words are in the model, in its graph or its
metadata.

To protect free text, a word is told by name only once it was seen more often. But what the model itself declares is
no secret and cannot grow without bound: its first predictions must be counted by name, in a fresh session and in a
fresh process. A job that starts for ten rows, or eight workers after a deploy, would otherwise report nothing but
`_OTHER`, and a drift to it. Ten fresh sessions of three calls, and three fresh processes of six calls.
"""

import json

from tests.cases import support

LABELS = ["ant", "bee", "cow"]
PROGRAM = """
import json, sys
import numpy as np, onnxruntime, support
from otel_mlmon.testing import capture
sessions, calls, how, labels = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
if how == "in the graph":
    model, name, feeds = support.text_classifier(labels), "scores", np.eye(3, dtype="f4")
else:
    declared = {"labels": json.dumps(labels), "classes": json.dumps(labels)}
    model = support.identity_model({"label": ("object", ["N"])}, declared)
    name, feeds = "in_label", np.array(labels, object)
with capture(max_features=0) as captured:
    for _ in range(sessions):
        session = onnxruntime.InferenceSession(model)
        for call in range(calls):
            session.run(None, {name: feeds[call % 3 : call % 3 + 1]})
    captured.flush()
    points = support.points_of(captured.metrics(), "ml.predictions")
    print(json.dumps({point.attributes["ml.prediction.label"]: point.value for point in points}))
"""


def counted(sessions: int, calls: int, how: str) -> dict[str, int]:
    done = support.run_program(PROGRAM, sessions, calls, how, json.dumps(LABELS))
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    checks = support.Checks()
    for how in ("in the graph", "in the metadata"):
        expected = dict.fromkeys(LABELS, 10)
        came = counted(10, 3, how)
        checks.that(f"words {how}, ten sessions of three calls: {expected}", came == expected, came)
        expected = dict.fromkeys(LABELS, 2)
        for number in (1, 2):
            came = counted(1, 6, how)
            checks.that(f"words {how}, fresh process {number} of six calls: {expected}", came == expected, came)
    checks.finish()


if __name__ == "__main__":
    main()
