"""Example alerts as the alert step makes them."""

from __future__ import annotations

from dataclasses import replace

from otel_mlmon.processor.alert.alert import Alert, AlertCause, RuleState

TIME_NS = 1_763_820_012_000_000_000

CAUSE = AlertCause(
    stream="prediction.label",
    value=0.35,
    bound=0.02,
    reference="class 3: 10 %",
    current="45 %",
    current_count=4210,
    reference_count=5000,
    onset_ns=TIME_NS - 12_000_000_000,
    bins=tuple("0123456789"),
    reference_shares=(0.1,) * 10,
    current_shares=(0.06, 0.07, 0.05, 0.45, 0.06, 0.06, 0.07, 0.06, 0.06, 0.06),
    summary="total variation 35 %, tolerated 2 % (n = 4 210, reference n = 5 000)",
    origin="learned",
)

FIRING = Alert(
    model="digits",
    version="1",
    rule="prediction_drift",
    title="prediction drift",
    state=RuleState.FIRING,
    previous=RuleState.OK,
    severity="critical",
    time_ns=TIME_NS,
    onset_ns=TIME_NS - 12_000_000_000,
    causes=(CAUSE,),
)

RESOLVED = replace(FIRING, state=RuleState.OK, previous=RuleState.FIRING, time_ns=TIME_NS + 60_000_000_000, sequence=1)
