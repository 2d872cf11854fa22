from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.config.document import read_document
from otel_mlmon.processor.config.load import load_config
from otel_mlmon.processor.config.model import Config
from otel_mlmon.processor.config.render import render_default_yaml
from otel_mlmon.processor.config.units import FalseAlarms
from otel_mlmon.processor.notify.webhook import WebhookSection

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> Path:
        path = tmp_path / "mlmon.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def faults(path: Path, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_config(path, environ or {})
    return [fault.removeprefix(f"{path}:") for fault in caught.value.faults]


def test_without_a_file_all_is_default() -> None:
    config = load_config(None, {})
    assert config == Config()
    assert (config.receiver.grpc, config.receiver.http, config.web.listen) == (
        "127.0.0.1:4317",
        "127.0.0.1:4318",
        "127.0.0.1:8080",
    )
    assert (config.receiver.max_request_bytes, config.receiver.max_pending_bytes) == (2**26, 2**28)
    assert (config.windows.pane_s, config.windows.lateness_s, config.windows.rolling_s) == (
        10.0,
        15.0,
        3600.0,
    )
    assert config.alerts.false_alarms == FalseAlarms(count=1, per_s=2592000.0)
    assert [entry.model_dump() for entry in config.alerts.notify] == [{"log": {}}, {"otlp": {}}]


@pytest.mark.parametrize("text", ["", "# nothing\n", "storage:\nmodels: {}\n", "{}"])
def test_an_empty_file_or_section_is_the_defaults(write: Write, text: str) -> None:
    config = load_config(write(text), {})
    assert config.storage == Config().storage
    assert config.find_model_section("any") == Config().find_model_section("any")


def test_the_printed_defaults_load_back_and_name_every_key(write: Write) -> None:
    text = render_default_yaml()
    assert load_config(write(text), {}) == Config()
    for key in (
        "max_pending:",
        "commit_interval: 50ms",
        "keep_firing_for: auto",
        "tolerance: 5%",
        "learn: 5000",
    ):
        assert key in text
    assert "false_alarms: 1 per 30d" in text


def test_every_fault_is_told_at_once_with_line_key_and_what_is_wrong(write: Write) -> None:
    path = write(
        """\
receiver: {grpc: "127.0.0.1", htp: "", max_request: 0B}
forward:
  protocol: grcp
windows:
  pane: 10s
  pane: 20s
alerts:
  notify:
    - webhook: {heders: {}}
    - slack: {}
    - {log: {}, otlp: {}}
models:
  "*": {latency: {threshold: 0s, max_ratio: 2}, max_labels: true}
  fraud.v1: {latncy: {}, max_features: many}
"""
    )
    assert faults(path) == [
        "1: receiver.grpc: must be host:port, such as 127.0.0.1:8080 or [::1]:8080, got '127.0.0.1'",
        "1: receiver.htp: is not a known key (did you mean `http`?)",
        "1: receiver.max_request: must be above 0, got '0B'",
        "3: forward.protocol: must be 'grpc' or 'http/protobuf', got 'grcp'",
        "6: windows.pane: is written twice",
        "9: alerts.notify[0].webhook.heders: is not a known key (did you mean `headers`?)",
        "9: alerts.notify[0].webhook.url: is needed",
        "10: alerts.notify[1].slack: is not a known key",
        "11: alerts.notify[2]: must have exactly one key, one of log, otlp, webhook, alertmanager, command, sentry, "
        "apprise",
        "13: models.*.latency.max_ratio: must be a ratio within 0% and 100%; "
        "a bare number is not per cent, so 2% is 0.02, got '2'",
        "13: models.*.latency.threshold: must be above 0, got '0s'",
        "13: models.*.max_labels: must be a whole number, got 'true'",
        '14: models."fraud.v1".latncy: is not a known key (did you mean `latency`?)',
        "14: models.\"fraud.v1\".max_features: must be a whole number, got 'many'",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "receiver: {grpc: '', http: null}",
            "1: receiver: grpc and http are both off: nothing could come in",
        ),
        ("receiver: {max_pending: 1MiB}", "1: receiver: max_pending must be at least max_request"),
        ("windows:\n  rolling: 1s\n", "1: windows: rolling must be at least pane"),
        ("storage: [1]", "1: storage: must be a mapping of keys to values"),
        ("- 1", "1: must be a mapping of keys to values"),
        ("just words", "1: must be a mapping of keys to values, got 'just words'"),
        ("models: {a: {reference: {learn: 0}}}", "1: models.a.reference.learn: must be 1 or above, got '0'"),
        ("receiver: {grpc: [}", "1: is not YAML: expected the node content, but found '}'"),
        ("a: 1\n---\nb: 2\n", "2: is not YAML: but found another document"),
        ("models: &a {x: *a}", "1: models.x: contains itself"),
        ("? [a]\n: 1\n", "1: has a key that is not a word"),
        ("web: \x07", "1: is not YAML: unacceptable character #x0007: special characters are not allowed"),
        ("\nweb: 2026-02-31", "2: web: is not YAML: day is out of range for month; put it in quotes if it is text"),
        ("storage: {commit_interval: 2s}", "1: storage.commit_interval: must be 1 or below, got '2s'"),
    ],
)
def test_each_kind_of_fault_has_its_words(write: Write, text: str, fault: str) -> None:
    assert fault in faults(write(text))


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    with pytest.raises(ConfigurationError, match=r"none\.yaml: cannot be read: No such file"):
        load_config(missing, {})
    broken = tmp_path / "latin.yaml"
    broken.write_bytes(b"a: \xff")
    with pytest.raises(ConfigurationError, match="byte 3 is not UTF-8"):
        load_config(broken, {})


def test_the_environment_fills_in_text_that_is_never_parsed_as_yaml(write: Write) -> None:
    path = write(
        """\
storage: {path: "${env:DATA}/mlmon"}
web: {listen: "${env:HOST:-127.0.0.1}:${env:PORT}"}
models: {"*": {reference: {learn: "${env:LEARN}"}, latency: {enabled: "${env:ON}"}}}
alerts: {notify: [{webhook: {url: "${env:URL}", secret: "${env:SECRET}", headers: {X: "$${env:NOT}"}}}]}
"""
    )
    environ = {
        "DATA": "/data",
        "PORT": "81",
        "LEARN": "7",
        "ON": "false",
        "URL": "https://x/a#b",
        "SECRET": "0123",
    }
    config = load_config(path, environ)
    assert (config.storage.path, config.web.listen) == (Path("/data/mlmon"), "127.0.0.1:81")
    assert (
        config.find_model_section("m").reference.learn,
        config.find_model_section("m").find_rule_section("latency").enabled,
    ) == (7, False)
    webhook = config.alerts.notify[0].section
    assert isinstance(webhook, WebhookSection)
    assert webhook.secret is not None
    assert (webhook.secret.get_secret_value(), webhook.headers["X"].get_secret_value()) == (
        "0123",
        "${env:NOT}",
    )


def test_a_variable_that_is_missing_or_misspelt_is_one_fault(write: Write) -> None:
    path = write('web: {listen: "${env:NOWHERE}"}\nforward:\n  endpoint: "${HOME}"\n')
    assert faults(path) == [
        "1: web.listen: the environment variable NOWHERE is not set",
        "3: forward.endpoint: ${HOME} is not understood; write ${env:NAME} or ${env:NAME:-default}",
    ]


def test_no_secret_is_printed_in_any_way(write: Write) -> None:
    good = write("alerts: {notify: [{webhook: {url: 'https://u:hunter2@x', secret: hunter2, headers: {A: hunter2}}}]}")
    assert "hunter2" not in repr(load_config(good, {}))
    bad = write("alerts: {notify: [{webhook: {url: 'ftp://hunter2', secret: [hunter2], headers: {A: [hunter2]}}}]}")
    assert "hunter2" not in "".join(faults(bad))
    assert "hunter2" not in "".join(faults(write("alerts: {notify: [{webhook: hunter2}]}")))
    bad = write('web: {listen: "${env:TOKEN}"}\nwindows: {pane: "${env:TOKEN}"}')
    assert "hunter2" not in "".join(faults(bad, {"TOKEN": "hunter2"}))


def test_entries_lie_over_each_other_from_the_least_to_the_most_specific(write: Write) -> None:
    config = load_config(
        write(
            """\
models:
  fraud-eu: {latency: {threshold: 10ms}}
  fraud-*: {latency: {threshold: 50ms, max_ratio: 5%}, max_labels: 7}
  "*": {latency: {max_ratio: 3%, enabled: false}, max_labels: 9, max_features: 11}
"""
        ),
        {},
    )
    exact, pattern, other = (
        config.find_model_section("fraud-eu"),
        config.find_model_section("fraud-us"),
        config.find_model_section("churn"),
    )
    assert (
        exact.find_rule_section("latency").threshold_s,
        exact.find_rule_section("latency").max_ratio,
        exact.find_rule_section("latency").enabled,
    ) == (
        0.01,
        0.05,
        False,
    )
    assert (pattern.find_rule_section("latency").threshold_s, pattern.max_labels, pattern.max_features) == (0.05, 7, 11)
    assert (
        other.find_rule_section("latency").threshold_s,
        other.find_rule_section("latency").max_ratio,
        other.max_labels,
    ) == (0.2, 0.03, 9)
    assert exact.find_rule_section("errors") == Config().find_model_section("x").find_rule_section("errors")


def test_anchors_and_merges_are_yaml_as_usual(write: Write) -> None:
    config = load_config(write("models:\n  a: &a {max_labels: 3}\n  b:\n    <<: *a\n    max_features: 4\n"), {})
    assert (config.find_model_section("b").max_labels, config.find_model_section("b").max_features) == (3, 4)


@given(st.text(max_size=60))
@settings(deadline=None, max_examples=200)
def test_any_text_is_a_document_or_faults_and_never_another_error(text: str) -> None:
    document = read_document(text, {})
    assert document.value is None or not document.faults or document.lines
    assert all(fault.line >= 1 for fault in document.faults)


def test_a_reference_that_moves_and_one_that_stays(tmp_path: Path) -> None:
    path = tmp_path / "mlmon.yaml"
    path.write_text(
        'models:\n  "*": {reference: {rolling: 7d, lag: 1d}}\n'
        "  weekly: {reference: {rolling: 28d, hour_of_week: true}}\n"
    )
    config = load_config(path, {})
    weekly = config.find_model_section("weekly").reference
    assert (weekly.rolling_s, weekly.lag_s, weekly.hour_of_week) == (28 * 86400.0, 86400.0, True)
    assert config.find_model_section("other").reference.rolling_s == 7 * 86400.0
    path.write_text("models:\n  a: {reference: {file: a.json, rolling: 7d}}\n  b: {reference: {rolling: 30m}}\n")
    with pytest.raises(ConfigurationError) as caught:
        load_config(path, {})
    assert caught.value.faults == (
        f"{path}:2: models.a.reference: file is a fixed reference; it cannot be rolling too",
        f"{path}:3: models.b.reference.rolling: must be 3600 or above, got '30m'",
    )


def test_rules_on_statistics(write: Write) -> None:
    path = write(
        """
models:
  fraud:
    statistic:
      thresholds:
      - {statistic: psi, stream: prediction.label, above: 0.2}
      - {statistic: chi_squared, p_below: 0.001}
"""
    )
    first, second = load_config(path, {}).find_model_section("fraud").find_rule_section("statistic").thresholds
    assert (first.statistic, first.stream, first.above, first.p_below) == ("psi", "prediction.label", 0.2, None)
    assert (second.statistic, second.stream, second.above, second.p_below) == ("chi_squared", "*", None, 0.001)
    assert load_config(path, {}).find_model_section("other").find_rule_section("statistic").thresholds == ()


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ("{statistic: psy, above: 0.2}", "psi"),
        ("{statistic: psi}", "exactly one of above and p_below"),
        ("{statistic: psi, above: 0.2, p_below: 0.1}", "exactly one of above and p_below"),
        ("{statistic: hellinger, p_below: 0.1}", "hellinger has no p-value"),
        ("{statistic: psi, above: -1}", "must be above 0"),
        ("{statistic: psi, p_below: 1}", "must be below 1"),
        ("{above: 0.2}", "statistic"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_where_it_stands(write: Write, rule: str, fault: str) -> None:
    (message,) = faults(write(f"models:\n  fraud:\n    statistic:\n      thresholds:\n      - {rule}\n"))
    assert "models.fraud.statistic.thresholds" in message
    assert fault in message


def test_a_time_zone_is_one_that_the_machine_knows(write: Write) -> None:
    config = load_config(write("models: {shop: {reference: {time_zone: Europe/Berlin}}}"), {})
    assert config.find_model_section("shop").reference.time_zone == "Europe/Berlin"
    (fault,) = faults(write("models: {shop: {reference: {time_zone: Mars/Olympus}}}"))
    assert "'Mars/Olympus' is no time zone that this machine knows" in fault
