"""An alert as the alert step makes it."""

from __future__ import annotations

from dataclasses import replace

from otel_mlmon.processor.alert.alert import Alert, Cause, State

AT_NS = 1_763_820_012_000_000_000

CAUSE = Cause(
    stream="prediction.label",
    value=0.35,
    bound=0.02,
    before="class 3: 10 %",
    now="45 %",
    n=4210,
    reference_count=5000,
    onset_ns=AT_NS - 12_000_000_000,
    bins=tuple("0123456789"),
    reference_shares=(0.1,) * 10,
    current_shares=(0.06, 0.07, 0.05, 0.45, 0.06, 0.06, 0.07, 0.06, 0.06, 0.06),
)

FIRING = Alert(
    model="digits",
    version="1",
    rule="prediction_drift",
    state=State.FIRING,
    previous=State.OK,
    severity="critical",
    at_ns=AT_NS,
    since_ns=AT_NS - 12_000_000_000,
    causes=(CAUSE,),
)

RESOLVED = replace(FIRING, state=State.OK, previous=State.FIRING, at_ns=AT_NS + 60_000_000_000)
