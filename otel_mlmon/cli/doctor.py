"""`otel-mlmon doctor`: which of the five steps of monitoring work here, and the one next thing to do.

It looks at a running processor, at the OTLP endpoint, at the environment of an application and at a configuration
file, and changes nothing. What a processor says is read as its page reads it, so that both say the same.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import urlsplit

HELP: Final = "say which of the five steps of monitoring work here, and what to do next"
EXIT_CODES: Final = (
    "Exit codes: 0 what is configured works; 1 something does not, or waits for traffic; 2 the arguments or the "
    "configuration cannot be used."
)

TIMEOUT_S: Final = 5.0
DEFAULT_ENDPOINT: Final = "http://localhost:4317"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_SIGNS: Final = {"works": "+", "waits": "…", "missing": "-", "broken": "x"}

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    is_good: bool
    text: str
    todo: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--config", metavar="FILE", help="the processor's configuration, which has its web port")
    parser.add_argument(
        "--url", metavar="URL", help="the processor's web port (default: `web.listen` of the configuration)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    """Looks, prints what there is, and returns the exit code.

    Raises:
        ConfigurationError: The configuration file is wrong; its faults name file, line and key.
    """
    document = diagnose(arguments.config, arguments.url, os.environ)
    if arguments.json:
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print(format_report(document))
    return 0 if document["works"] else 1


def diagnose(config: str | None, url: str | None, environ: Mapping[str, str]) -> Document:
    """Returns what was found, as a JSON object.

    Args:
        config: The path of the configuration file; None for the defaults.
        url: The processor's web port; None for that of the configuration.
        environ: The environment of the application.
    """
    import time

    from otel_mlmon.processor.config.load import load_config
    from otel_mlmon.processor.serve.page.findings import build_findings
    from otel_mlmon.processor.serve.page.steps import MonitoringStep, next_step

    section = load_config(config)
    listen = section.web.listen
    address = url or (f"http://{_reachable(listen)}" if listen else None)
    checks = [Check(name="configuration", is_good=True, text=f"{config} is valid")] if config else []
    live, reason = _read_processor(address) if address else (None, "web.listen is switched off in the configuration")
    if live is None:
        todo = "Start it: otel-mlmon processor. Where it runs elsewhere: otel-mlmon doctor --url http://HOST:8080."
        checks.append(Check(name="processor", is_good=False, text=reason, todo=todo))
        missing = MonitoringStep(number=1, state="broken", text="no processor was found", todo=todo)
        waiting = [MonitoringStep(number=number, state="waits", text="needs a processor") for number in (2, 3, 4, 5)]
        steps: tuple[MonitoringStep, ...] = (missing, *waiting)
    else:
        overview, setup = live
        checks.append(Check(name="processor", is_good=True, text=f"answers at {address}"))
        result = build_findings(overview, setup, now_ns=time.time_ns())
        steps = result["steps"]
        checks += [
            Check(name="telemetry", is_good=item.is_good, text=item.text, todo=item.todo) for item in result["findings"]
        ]
    checks += check_environment(environ)
    following = next_step(steps)
    is_working = not any(step.state in ("broken", "waits") for step in steps) and steps[0].is_working
    return {
        "works": is_working and all(check.is_good for check in checks if check.name != "telemetry"),
        "steps": [step.to_dict() for step in steps],
        "next": following.to_dict() if following is not None else None,
        "checks": [asdict(check) for check in checks],
    }


def check_environment(environ: Mapping[str, str]) -> Iterable[Check]:
    """Checks the environment of an application: whether OpenTelemetry is on, and whether its endpoint listens."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        todo = "Unset it where the application runs."
        yield Check(name="environment", is_good=False, text="OTEL_SDK_DISABLED is true: nothing is sent", todo=todo)
    if environ.get("OTEL_METRICS_EXPORTER", "").strip().lower() == "none":
        text = "OTEL_METRICS_EXPORTER is none: no metrics are sent"
        yield Check(name="environment", is_good=False, text=text, todo="Unset it, or set it to otlp.")
    variable = next((name for name in _ENDPOINTS if environ.get(name, "").strip()), None)
    endpoint = environ[variable].strip() if variable else DEFAULT_ENDPOINT
    source = f"{variable} is {endpoint}" if variable else f"the default endpoint is {endpoint}"
    fault = _find_fault(endpoint)
    if fault is None:
        yield Check(name="endpoint", is_good=True, text=f"{source}, and something listens there")
    else:
        todo = "Start the Collector or the processor there, or set OTEL_EXPORTER_OTLP_ENDPOINT."
        # An application elsewhere has another endpoint: only one that is set here is known to be meant.
        yield Check(name="endpoint", is_good=variable is None, text=f"{source}, {fault}", todo=todo)


def format_report(document: Document) -> str:
    """Formats what was found as text, the one next thing last."""
    lines = ["Five steps:"]
    lines += [
        f"  {_SIGNS[step['state']]} {step['number']}. {step['name']}: {step['text']}" for step in document["steps"]
    ]
    lines += ["", "Looked at:"]
    for check in document["checks"]:
        lines.append(f"  {'+' if check['is_good'] else 'x'} {check['name']}: {check['text']}")
        lines += [f"      {check['todo']}"] if check["todo"] and not check["is_good"] else []
    following = document["next"]
    lines.append("")
    if following is None:
        lines.append("Nothing to do: all five steps work.")
    else:
        lines.append(f"Next: {following['name'].lower()}. {following['todo'] or following['text']}")
    return "\n".join(lines)


def _reachable(listen: str) -> str:
    """Returns an address to call for one to listen on: all interfaces include this machine's own."""
    host, _, port = listen.rpartition(":")
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "[::]", "") else listen  # noqa: S104 - compared, not bound


def _read_processor(url: str) -> tuple[tuple[Document, Document] | None, str]:
    """Returns overview and setup of a running processor, or why there are none."""
    import httpx

    try:
        with httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
            setup = client.get("/api/v1/setup").raise_for_status().json()
            models = client.get("/api/v1/models").raise_for_status().json()["models"]
            alerts = client.get("/api/v1/alerts").raise_for_status().json()["alerts"]
    except httpx.HTTPStatusError as error:
        return None, f"what answers at {url} is no processor of this release: HTTP {error.response.status_code}"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return None, f"nothing answers at {url}: {str(error) or type(error).__name__}"
    except (KeyError, TypeError, ValueError):
        return None, f"what answers at {url} is no processor"
    versions = {name: {document["version"]: document} for name, document in models.items()}
    return ({"versions": versions, "models": models, "alerts": alerts}, setup), ""


def _find_fault(endpoint: str) -> str | None:
    """Returns why nothing can be sent to an endpoint; None if something listens there."""
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
        port = parts.port or (443 if parts.scheme == "https" else 4317)
    except ValueError as error:
        return f"which is no address: {error}"
    if not parts.hostname:
        return "which is no address"
    try:
        socket.create_connection((parts.hostname, port), timeout=TIMEOUT_S).close()
    except OSError as error:
        return f"and nothing can be reached there: {error}"
    return None
