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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from otel_mlmon.errors import MlmonError

if TYPE_CHECKING:
    import httpx

HELP: Final = "say which of the five steps of monitoring work here, and what to do next"
EXIT_CODES: Final = (
    "Exit codes: 0 what is configured works; 1 something does not, or waits for traffic; 2 the arguments or the "
    "configuration cannot be used."
)

TIMEOUT_S: Final = 5.0
READ_TOKEN_VARIABLE: Final = "OTEL_MLMON_READ_TOKEN"  # noqa: S105 (the name of the variable)
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


class _RefusedError(Exception):
    """An answer of the web port that is no success."""

    def __init__(self, status_code: int) -> None:
        super().__init__(f"HTTP {status_code}")
        self.status_code = status_code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--config", metavar="FILE", help="the processor's configuration, which has its web port")
    parser.add_argument(
        "--url", metavar="URL", help="the processor's web port (default: `web.listen` of the configuration)"
    )
    parser.add_argument(
        "--token",
        metavar="TOKEN",
        help=f"its `web.read_token` (default: {READ_TOKEN_VARIABLE}, or that of the configuration)",
    )
    parser.add_argument("--ca", type=Path, metavar="FILE", help="the authority of its certificate, if it is private")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    """Looks, prints what there is, and returns the exit code.

    Raises:
        ConfigurationError: The configuration file is wrong; its faults name file, line and key.
    """
    document = diagnose(arguments.config, arguments.url, os.environ, token=arguments.token, ca_file=arguments.ca)
    if arguments.json:
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print(format_report(document))
    return 0 if document["works"] else 1


def diagnose(
    config: str | None,
    url: str | None,
    environ: Mapping[str, str],
    *,
    token: str | None = None,
    ca_file: Path | None = None,
) -> Document:
    """Returns what was found, as a JSON object.

    Args:
        config: The path of the configuration file; None for the defaults.
        url: The processor's web port; None for that of the configuration.
        environ: The environment of the application.
        token: The token of readers; None for that of the environment, or of the configuration.
        ca_file: The authority of the processor's certificate; None for those that the system trusts. The certificate
            of the configuration is trusted as such.
    """
    import time

    from otel_mlmon.processor.config.load import load_config
    from otel_mlmon.processor.serve.page.findings import build_findings
    from otel_mlmon.processor.serve.page.steps import MonitoringStep, next_step

    section = load_config(config)
    web = section.web
    scheme = "https" if web.tls.certificate is not None else "http"
    address = url or (f"{scheme}://{_reachable(web.listen)}" if web.listen else None)
    token = token or environ.get(READ_TOKEN_VARIABLE) or (web.read_token.get_secret_value() if web.read_token else "")
    certificate = web.tls.certificate if url is None else None
    checks = [Check(name="configuration", is_good=True, text=f"{config} is valid")] if config else []
    live: tuple[Document, Document] | None = None
    reason = "web.listen is switched off in the configuration"
    if address:
        live, reason = _read_processor(address, token.strip(), ca_file, certificate)
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


def _read_processor(
    url: str, token: str, ca_file: Path | None, certificate: Path | None
) -> tuple[tuple[Document, Document] | None, str]:
    """Returns overview and setup of a running processor, or why there are none."""
    import httpx

    from otel_mlmon.reference import web_port

    trust = web_port.trust_authority(ca_file) if ca_file is not None else None
    if trust is None and certificate is not None:
        trust = web_port.trust_certificate(certificate)
    try:
        with web_port.connect(url, option="--url", timeout_s=TIMEOUT_S, token=token, trust=trust) as client:
            setup = _read_document(client, "/api/v1/setup")
            models = _read_document(client, "/api/v1/models")["models"]
            alerts = _read_document(client, "/api/v1/alerts")["alerts"]
            versions = {
                name: {entry["version"]: _read_version(client, name, entry["version"]) for entry in model["versions"]}
                for name, model in models.items()
            }
    except _RefusedError as error:
        if error.status_code == httpx.codes.UNAUTHORIZED:
            return None, f"the processor at {url} asks for the token of its readers: --token, or {READ_TOKEN_VARIABLE}"
        return None, f"what answers at {url} is no processor of this release: HTTP {error.status_code}"
    except MlmonError as error:
        return None, f"nothing answers at {url}: {error}"
    except (KeyError, TypeError, ValueError):
        return None, f"what answers at {url} is no processor"
    return ({"versions": versions, "models": models, "alerts": alerts}, setup), ""


def _read_document(client: httpx.Client, path: str, **query: str) -> Document:
    answer = client.get(path, params=query)
    if not answer.is_success:
        raise _RefusedError(answer.status_code)
    document: Document = answer.json()
    return document


def _read_version(client: httpx.Client, model: str, version: str) -> Document:
    """Returns the document of one version of a model."""
    return _read_document(client, f"/api/v1/models/{quote(model, safe='')}", version=version)


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
