from __future__ import annotations

import shlex
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.processor.alert.alert import Alert, AlertAddresses, AlertLink, ExampleTrace, RuleState
from otel_mlmon.processor.state.repository import decode_record, encode_record
from tests.support.alerts import CAUSE, FIRING, RESOLVED

WEB = AlertAddresses(web="127.0.0.1:8080")
FULL = replace(
    FIRING,
    environment="staging",
    reason="x",
    addresses=replace(WEB, trace="https://t/{trace_id}", others=(AlertLink(name="a", url="https://a"),)),
    exemplars=("t",),
)


def test_an_alert_is_stored_and_read_back_unchanged() -> None:
    assert decode_record(encode_record(FULL), Alert) == FULL


def test_the_fingerprint_is_of_model_version_environment_and_rule_only() -> None:
    other = replace(FIRING, state=RuleState.OK, severity="warning", causes=(), time_ns=1, onset_ns=2, title="x")
    assert other.fingerprint == FIRING.fingerprint
    for change in (
        replace(FIRING, model="m"),
        replace(FIRING, version="2"),
        replace(FIRING, environment="staging"),
        replace(FIRING, rule="latency"),
        replace(FIRING, model="digits\0" + FIRING.version, version=""),
    ):
        assert (len(change.fingerprint), change.fingerprint == FIRING.fingerprint) == (16, False)


def test_only_ok_resolves() -> None:
    assert [state for state in RuleState if replace(FIRING, state=state).is_resolved] == [RuleState.OK]
    assert FIRING.causes == (CAUSE,)


def test_names_in_addresses_are_one_part_of_them() -> None:
    addresses = AlertAddresses(
        dashboard="https://d/{model}?v={version}&e={environment}&r={rule}&{other}={}",
        runbook="https://wiki/runbooks/",
        trace="https://t/{trace_id}?m={model}",
        others=(AlertLink(name="chat", url="https://chat/{model}"), AlertLink(name="no", url="javascript:alert(1)")),
    )
    alert = replace(FIRING, model="a/b ?&#{rule}", addresses=addresses, exemplars=("1", "../x"))
    name = "a%2Fb%20%3F%26%23%7Brule%7D"
    assert alert.links == (
        AlertLink(name="dashboard", url=f"https://d/{name}?v=1&e=&r=prediction_drift&{{other}}={{}}"),
        AlertLink(name="runbook", url="https://wiki/runbooks/prediction_drift.md"),
        AlertLink(name="chat", url=f"https://chat/{name}"),
    )
    assert alert.traces == (
        ExampleTrace(trace_id="1", url=f"https://t/1?m={name}"),
        ExampleTrace(trace_id="../x", url=f"https://t/..%2Fx?m={name}"),
    )


def test_without_addresses_there_are_no_links_and_without_a_known_port_no_commands() -> None:
    for web in ("", "127.0.0.1:0"):
        alert = replace(FIRING, addresses=AlertAddresses(web=web), exemplars=("t",))
        assert (alert.links, alert.traces) == ((), (ExampleTrace(trace_id="t", url=""),))
        assert (alert.silence_command, alert.relearn_command) == ("", "")


@pytest.mark.parametrize(
    ("web", "option"),
    [
        ("127.0.0.1:8080", ""),
        ("0.0.0.0:8080", ""),
        ("[::]:9", " --url 'http://[::1]:9'"),
        ("10.0.0.1:8080", " --url http://10.0.0.1:8080"),
    ],
)
def test_commands_ask_the_port_that_the_processor_has(web: str, option: str) -> None:
    alert = replace(FIRING, addresses=AlertAddresses(web=web))
    assert alert.silence_command == f"otel-mlmon alert silence digits --rule prediction_drift --for 2h{option}"
    assert alert.relearn_command.endswith(f" --stream prediction.label{option}")
    assert replace(alert, state=RuleState.OK).silence_command == RESOLVED.silence_command == ""


@given(st.text(min_size=1, max_size=30).filter(str.isprintable))
@settings(deadline=None, max_examples=100)
def test_a_shell_reads_any_name_in_a_command_as_one_word(name: str) -> None:
    alert = replace(FIRING, model=name, version=name, causes=(replace(CAUSE, stream=name),), addresses=WEB)
    words = shlex.split(alert.relearn_command)
    assert words.count(name) >= 2
    assert alert.model_id in words
    if name.startswith("-"):
        assert words[-2:] == ["--", alert.model_id]


def test_a_silence_is_about_this_model_alone_whatever_it_is_called() -> None:
    alert = replace(FIRING, model="a*[b]?", addresses=WEB)
    assert shlex.split(alert.silence_command)[3] == "a[*][[]b][?]"


def test_a_character_that_does_not_print_is_spelled_out_for_the_shell() -> None:
    alert = replace(FIRING, model="a\x1b]'b", addresses=WEB)
    assert alert.silence_command.startswith("otel-mlmon alert silence $'a\\x1b]\\x27b' --rule")
