"""`otel-mlmon alert`: lists and silences the alerts of a running processor, and tests its notifiers."""

from __future__ import annotations

import argparse
import getpass
import json
import logging
import os
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any, Final

from otel_mlmon.cli.connection import ADMINISTRATOR, READER, AccessRole, add_connection_arguments, read_connection
from otel_mlmon.errors import ConfigurationError

HELP: Final = "list and silence the alerts of a running processor, or send a test alert"
EXIT_CODES: Final = (
    "Exit codes: 0 success; 1 a notifier did not deliver the test alert; 2 the arguments, the configuration or the "
    "processor cannot be used, and why is on stderr."
)

TEST_MODEL: Final = "otel-mlmon-test"
SILENCES: Final = "/api/v1/silences"
ALERTS: Final = "/api/v1/alerts"

Document = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `otel-mlmon alert`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def add_action_parser(name: str, description: str, *, role: AccessRole | None = None) -> argparse.ArgumentParser:
        text = f"{description[0].upper()}{description[1:]}."
        action = actions.add_parser(name, help=description, description=text, epilog=EXIT_CODES)
        if role is not None:
            add_connection_arguments(action, role)
        return action

    for name, description in (
        ("list", "list the alerts that are not over, and those that were resolved of late"),
        ("silences", "list the silences that are active, and those that were over of late"),
    ):
        listing = add_action_parser(name, description, role=READER)
        listing.add_argument("--json", action="store_true", help="print one JSON document")
    silence = add_action_parser("silence", "notify nobody of a model's alerts for a while", role=ADMINISTRATOR)
    silence.add_argument(
        "model", metavar="MODEL",
        help="its name or a pattern, `fraud-*`, in all environments; or with one of them, `fraud@staging`",
    )  # fmt: skip
    silence.add_argument("--rule", default="*", metavar="RULE", help="a rule or a pattern (default: all)")
    silence.add_argument("--for", dest="duration", default="2h", metavar="2h", help="how long (default: %(default)s)")
    silence.add_argument("--reason", default="", metavar="TEXT", help="why; it is shown with the alert")
    silence.add_argument("--author", metavar="NAME", help="who asks for it (default: the user of this machine)")
    unsilence = add_action_parser("unsilence", "end a silence now", role=ADMINISTRATOR)
    unsilence.add_argument("id", metavar="ID", help="its id, as `otel-mlmon alert silences` lists it")
    test = add_action_parser(
        "test", "send an alert that says that it is a test through the notifiers of a configuration"
    )
    test.add_argument("--config", metavar="FILE", help="the processor's configuration; by default the defaults")
    test.add_argument(
        "--notifier", action="append", default=[], metavar="NAME",
        help="which, such as webhook, or webhook-2 for the second of a kind; may be given several times (default: all "
        "but those that run a program, which are tested only by name)",
    )  # fmt: skip
    test.add_argument("--rule", default="prediction_drift", metavar="RULE", help="default: %(default)s")
    test.add_argument("--model", default=TEST_MODEL, metavar="MODEL", help="default: %(default)s")
    test.add_argument(
        "--timeout", default="20s", metavar="20s", help="how long it is attempted again (default: %(default)s)"
    )


def run_command(arguments: argparse.Namespace) -> int:
    """Runs the action of `otel-mlmon alert` that the arguments name, and returns the exit code.

    Raises:
        ConfigurationError: An argument or the configuration cannot be used.
        ProcessorError: The processor does not answer, or refuses.
    """
    actions = {
        "list": _list_alerts,
        "silences": _list_silences,
        "silence": _create_silence,
        "unsilence": _end_silence,
        "test": _test_notifiers,
    }
    return actions[arguments.action](arguments)


def _list_alerts(arguments: argparse.Namespace) -> int:
    alerts = _request_processor(arguments, "GET", ALERTS, READER)["alerts"]
    if arguments.json:
        print(json.dumps(alerts, indent=2, ensure_ascii=False))
    elif alerts:
        rows = [_describe_alert(alert) for alert in alerts]
        _print_table(("state", "severity", "model", "version", "rule", "since", "what", "silence"), rows)
    else:
        print("Nothing fires, and nothing was resolved of late.")
    return 0


def _describe_alert(alert: Document) -> tuple[str, ...]:
    state = "resolved" if alert["state"] == "ok" else alert["state"].replace("_", " ")
    cause = alert["causes"][0] if alert["causes"] else None
    what = f"{cause['stream']}: {cause['reference']} → {cause['current']}" if cause else alert["title"]
    environment = f"@{alert['environment']}" if alert["environment"] else ""
    model = f"{alert['model']}{environment}"
    severity = "" if alert["state"] == "ok" else alert["severity"]
    since = _format_time(alert["onset_ns"] or alert["time_ns"])
    return state, severity, model, alert["version"], alert["rule"], since, what, alert["silence"]


def _list_silences(arguments: argparse.Namespace) -> int:
    silences = _request_processor(arguments, "GET", SILENCES, READER)["silences"]
    if arguments.json:
        print(json.dumps(silences, indent=2, ensure_ascii=False))
    elif silences:
        rows = [
            (
                silence["id"], "active" if silence["is_active"] else "over", silence["model"], silence["rule"],
                _format_time(silence["end_ns"]), silence["author"], silence["reason"],
            )
            for silence in silences
        ]  # fmt: skip
        _print_table(("id", "state", "model", "rule", "until", "author", "reason"), rows)
    else:
        print("Nothing is silenced.")
    return 0


def _create_silence(arguments: argparse.Namespace) -> int:
    body = {
        "model": arguments.model,
        "rule": arguments.rule,
        "duration_s": _parse_duration("--for", arguments.duration),
        "author": _find_user_name() if arguments.author is None else arguments.author,
        "reason": arguments.reason,
    }
    silence = _request_processor(arguments, "POST", SILENCES, ADMINISTRATOR, body)
    rule = "all rules" if silence["rule"] == "*" else silence["rule"]
    models = ", ".join(silence["models"]) or "no model that is known by now"
    print(f"{silence['id']}: {rule} of {silence['model']} ({models}), until {_format_time(silence['end_ns'])}.")
    print(f"To end it before: otel-mlmon alert unsilence {silence['id']}")
    return 0


def _end_silence(arguments: argparse.Namespace) -> int:
    from urllib.parse import quote

    silence = _request_processor(arguments, "DELETE", f"{SILENCES}/{quote(arguments.id, safe='')}", ADMINISTRATOR)
    print(f"{silence['id']}: is over. What still fires of {silence['model']} is notified now.")
    return 0


def _test_notifiers(arguments: argparse.Namespace) -> int:
    import time

    from otel_mlmon.processor.alert.rules.rule import RULES
    from otel_mlmon.processor.config.load import load_config
    from otel_mlmon.processor.notify_trial import build_test_alert, send_test_alert

    config = load_config(arguments.config)
    entries = config.alerts.named_notifiers()
    unknown = [name for name in arguments.notifier if name not in entries]
    if unknown:
        raise ConfigurationError(f"--notifier: {unknown[0]!r} is not one of {', '.join(entries)}")
    if arguments.rule not in RULES.list_names():
        raise ConfigurationError(f"--rule: {arguments.rule!r} is not one of {', '.join(RULES.list_names())}")
    timeout_s = _parse_duration("--timeout", arguments.timeout)
    _configure_logging()
    chosen = arguments.notifier or [name for name, entry in entries.items() if entry.name != "command"]
    alert = build_test_alert(config, rule=arguments.rule, model=arguments.model, now_ns=time.time_ns())
    is_complete = bool(chosen)
    for outcome in send_test_alert(config, alert, tuple(dict.fromkeys(chosen)), timeout_s=timeout_s):
        count = f"{outcome.attempts} attempt{'s' if outcome.attempts != 1 else ''}"
        text = "delivered" if outcome.is_delivered else f"NOT delivered: {outcome.detail}"
        print(f"{outcome.notifier}: {text} ({count})")
        is_complete &= outcome.is_delivered
    for name in entries if not arguments.notifier else ():
        if name not in chosen:
            print(f"{name}: not tested, since it runs a program; test it with --notifier {name}")
    return 0 if is_complete else 1


def _configure_logging() -> None:
    """Shows the log lines of otel_mlmon only, since those of other libraries may name addresses with tokens."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(logging.Filter("otel_mlmon"))
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])


def _parse_duration(option: str, text: str) -> float:
    from otel_mlmon.processor.config.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigurationError(f"{option}: {error}") from None


def _request_processor(
    arguments: argparse.Namespace, method: str, path: str, role: AccessRole, body: Document | None = None
) -> Document:
    from otel_mlmon.reference.web_port import request_json_document

    port = read_connection(arguments, role, os.environ)
    advice = {"unauthorized": f" In this command that is --token, or {role.variable} in the environment."}
    return request_json_document(method, port, path, body=body, advice=advice)


def _find_user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise ConfigurationError("--author: this machine has no name for you; give one") from None


def _format_time(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns / 1e9, tz=timezone.utc):%Y-%m-%d %H:%M} UTC"


def _print_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Prints a table whose columns are as wide as their longest text; empty columns are left out."""
    lines = [head, *(tuple("".join(c if c.isprintable() else "?" for c in cell) for cell in row) for row in rows)]
    columns = [column for column in zip(*lines, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    for cells in zip(*columns, strict=True):
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip())
