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
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from otel_mlmon.cli.connection import READER, add_connection_arguments, read_connection
from otel_mlmon.errors import MlmonError

if TYPE_CHECKING:
    import httpx

    from otel_mlmon.processor.serve.config import WebSection
    from otel_mlmon.reference.web_port import WebPort

HELP: Final = "say which of the five steps of monitoring work here, and what to do next"
EXIT_CODES: Final = (
    "Exit codes: 0 what is configured works; 1 something does not, or waits for traffic; 2 the arguments or the "
    "configuration cannot be used."
)

TIMEOUT_S: Final = 5.0
DEFAULT_ENDPOINT: Final = "http://localhost:4317"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_OTHER_PROTOCOL: Final = {
    ("grpc", 4318): "http/protobuf",
    ("http/protobuf", 4317): "grpc",
    ("http/json", 4317): "grpc",
}
"""By protocol and port, the protocol that the port is registered for. Source: the OTLP specification."""
_SIGNS: Final = {"works": "+", "waits": "…", "missing": "-", "broken": "x"}

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupCheck:
    """The result of one check of `otel-mlmon doctor`: whether it is good, what was found, and what to do."""

    name: str
    is_good: bool
    text: str
    todo: str = ""


class _RequestRefusedError(Exception):
    """Raised where the web port of a processor answers a request with an error status."""

    def __init__(self, status_code: int) -> None:
        super().__init__(f"HTTP {status_code}")
        self.status_code = status_code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `otel-mlmon doctor`."""
    parser.add_argument("--config", metavar="FILE", help="the processor's configuration, which has its web port")
    add_connection_arguments(parser, READER, default_address=None)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `otel-mlmon doctor`: checks the setup, prints what was found, and returns the exit code.

    Raises:
        ConfigurationError: The configuration file is wrong, and its faults name file, line and key; or a certificate
            cannot be used.
    """
    from otel_mlmon.processor.config.load import load_config

    port = _find_web_port(arguments, load_config(arguments.config).web)
    document = diagnose_setup(arguments.config, port, os.environ)
    if arguments.json:
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print(format_diagnosis(document))
    return 0 if document["works"] else 1


def diagnose_setup(config: str | None, port: WebPort | None, environ: Mapping[str, str]) -> Document:
    """Checks configuration, processor and environment, and returns what was found as a JSON object.

    Args:
        config: The path of the configuration file, which is valid; None for the defaults.
        port: The processor's web port; None where it is switched off.
        environ: The environment of the application.
    """
    import time

    from otel_mlmon.processor.serve.page.findings import build_setup_view
    from otel_mlmon.processor.serve.page.steps import MonitoringStep, find_next_step

    checks = [SetupCheck(name="configuration", is_good=True, text=f"{config} is valid")] if config else []
    if port is not None:
        answer = _read_processor_setup(port)
    else:
        answer = SetupCheck(
            name="processor", is_good=False, text="web.listen is switched off in the configuration", todo=_SWITCH_ON
        )
    if isinstance(answer, SetupCheck):
        checks.append(answer)
        missing = MonitoringStep(number=1, state="broken", text="no processor was found", todo=answer.todo)
        waiting = [MonitoringStep(number=number, state="waits", text="needs a processor") for number in (2, 3, 4, 5)]
        steps: tuple[MonitoringStep, ...] = (missing, *waiting)
    else:
        overview, setup = answer
        checks.append(SetupCheck(name="processor", is_good=True, text=f"answers at {port.address if port else ''}"))
        result = build_setup_view(overview, setup, now_ns=time.time_ns())
        steps = result["steps"]
        checks += [
            SetupCheck(name="telemetry", is_good=item.is_good, text=item.text, todo=item.todo)
            for item in result["findings"]
        ]
    environment = list(check_environment(environ))
    checks += environment
    following = find_next_step(steps)
    fault = next((check for check in environment if not check.is_good), None)
    if fault is not None and not isinstance(answer, SetupCheck) and (following is None or following.state != "broken"):
        # What keeps an application from sending comes before what a processor waits for.
        following = MonitoringStep(number=1, state="broken", text=fault.text, todo=fault.todo)
    is_working = not any(step.state in ("broken", "waits") for step in steps) and steps[0].is_working
    return {
        "works": is_working and all(check.is_good for check in checks if check.name != "telemetry"),
        "steps": [step.to_dict() for step in steps],
        "next": following.to_dict() if following is not None else None,
        "checks": [asdict(check) for check in checks],
    }


_START: Final = "Start it: otel-mlmon processor. Where it runs elsewhere: otel-mlmon doctor --url http://HOST:8080."
_SWITCH_ON: Final = "Set web.listen in the configuration, such as 127.0.0.1:8080."
_OTHER_PORT: Final = "Another program has this port: give the processor's with --url, its web.listen (8080 by default)."


def check_environment(environ: Mapping[str, str]) -> Iterable[SetupCheck]:
    """Checks the environment of an application: whether OpenTelemetry is on, and whether its endpoint listens."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        todo = "Unset it where the application runs."
        yield SetupCheck(
            name="environment", is_good=False, text="OTEL_SDK_DISABLED is true: nothing is sent", todo=todo
        )
    exporters = [name.strip().lower() for name in environ.get("OTEL_METRICS_EXPORTER", "").split(",") if name.strip()]
    if exporters and "otlp" not in exporters:
        effect = "no metrics are sent" if exporters == ["none"] else "no metrics are sent over OTLP"
        text = f"OTEL_METRICS_EXPORTER is {','.join(exporters)}: {effect}"
        yield SetupCheck(name="environment", is_good=False, text=text, todo="Unset it, or set it to otlp.")
    variable = next((name for name in _ENDPOINTS if environ.get(name, "").strip()), None)
    endpoint = environ[variable].strip() if variable else DEFAULT_ENDPOINT
    source = f"{variable} is {endpoint}" if variable else f"the default endpoint is {endpoint}"
    protocol_variable = next((name for name in _PROTOCOLS if environ.get(name, "").strip()), None)
    protocol = environ[protocol_variable].strip().lower() if protocol_variable else "grpc"
    usual = _OTHER_PROTOCOL.get((protocol, _find_port_number(endpoint) or 0))
    if usual is not None:
        said = f"{protocol_variable} is {protocol}" if protocol_variable else f"the protocol is {protocol} by default"
        text = f"{source}, which is usually the port of {usual}, and {said}"
        todo = f"Set OTEL_EXPORTER_OTLP_PROTOCOL to {usual}, or the endpoint to the other port."
        yield SetupCheck(name="environment", is_good=False, text=text, todo=todo)
    fault = _find_endpoint_fault(endpoint)
    if fault is None:
        yield SetupCheck(name="endpoint", is_good=True, text=f"{source}, and something listens there")
    else:
        todo = "Start the Collector or the processor there, or set OTEL_EXPORTER_OTLP_ENDPOINT."
        # An application elsewhere has another endpoint: only one that is set here is known to be meant.
        yield SetupCheck(name="endpoint", is_good=variable is None, text=f"{source}, {fault}", todo=todo)


def format_diagnosis(document: Document) -> str:
    """Formats the findings of `otel-mlmon doctor` as text, with the one next thing to do at the end."""
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


def _find_web_port(arguments: argparse.Namespace, web: WebSection) -> WebPort | None:
    """Returns the processor's web port from the options, else from the configuration; None if switched off there."""
    from dataclasses import replace

    scheme = "https" if web.tls.certificate is not None else "http"
    address = arguments.url or (f"{scheme}://{_make_reachable_address(web.listen)}" if web.listen else None)
    if address is None:
        return None
    port = read_connection(
        arguments,
        READER,
        os.environ,
        address=address,
        server_certificate=web.tls.certificate if arguments.url is None else None,
    )
    token = port.token or (web.read_token.get_secret_value() if web.read_token else "")
    return replace(port, token=token, timeout_s=TIMEOUT_S)


def _make_reachable_address(listen: str) -> str:
    """Returns the address at which a listening address can be called: 127.0.0.1 for one of all interfaces."""
    host, _, port = listen.rpartition(":")
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "[::]", "") else listen  # noqa: S104 - compared, not bound


def _read_processor_setup(port: WebPort) -> tuple[Document, Document] | SetupCheck:
    """Returns the API's overview and setup of a running processor, or a failed check that says why there are none."""
    import httpx

    from otel_mlmon.reference import web_port

    url = port.address
    try:
        with web_port.open_web_client(port) as client:
            setup = _request_document(client, "/api/v1/setup")
            models = _request_document(client, "/api/v1/models")["models"]
            alerts = _request_document(client, "/api/v1/alerts")["alerts"]
            versions = {
                name: {
                    entry["version"]: _request_model_version(client, name, entry["version"])
                    for entry in model["versions"]
                }
                for name, model in models.items()
            }
    except _RequestRefusedError as error:
        if error.status_code == httpx.codes.UNAUTHORIZED:
            text = f"the processor at {url} asks for the token of its readers: --token, or {READER.variable}"
            return _make_failed_check(text, f"Give its web.read_token with --token, or in {READER.variable}.")
        text = f"what answers at {url} is no processor of this release: HTTP {error.status_code}"
        return _make_failed_check(text, _OTHER_PORT)
    except MlmonError as error:
        is_untrusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
        todo = "Give the authority of its certificate with --ca." if is_untrusted else _START
        return _make_failed_check(f"nothing answers at {url}: {error}", todo)
    except (AttributeError, KeyError, TypeError, ValueError):
        return _make_failed_check(f"what answers at {url} is no processor", _OTHER_PORT)
    return {"versions": versions, "models": models, "alerts": alerts}, setup


def _make_failed_check(text: str, todo: str) -> SetupCheck:
    return SetupCheck(name="processor", is_good=False, text=text, todo=todo)


def _request_document(client: httpx.Client, path: str, **query: str) -> Document:
    answer = client.get(path, params=query)
    if not answer.is_success:
        raise _RequestRefusedError(answer.status_code)
    document: Document = answer.json()
    return document


def _request_model_version(client: httpx.Client, model: str, version: str) -> Document:
    """Returns the API's JSON document of one version of a model."""
    return _request_document(client, f"/api/v1/models/{quote(model, safe='')}", version=version)


def _find_port_number(endpoint: str) -> int | None:
    """Returns the port number of an endpoint; None if it has none."""
    try:
        return urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}").port
    except ValueError:
        return None


def _find_endpoint_fault(endpoint: str) -> str | None:
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
