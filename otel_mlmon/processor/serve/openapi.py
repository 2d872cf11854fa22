"""Builds the OpenAPI document of the web port, `/api/v1/openapi.json`, from its routes and response types.

Source: OpenAPI Specification 3.1.0; https://jcristharif.com/msgspec/jsonschema.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from starlette.routing import BaseRoute, Route

from otel_mlmon.processor.serve import schema

PATH: Final = "/api/v1/openapi.json"
OPENAPI: Final = "3.1.0"

_JSON: Final = "application/json"
_REF: Final = "#/components/schemas/{name}"
_TEXT: Final = {"type": "string"}
_FLAG: Final = {"type": "string", "enum": ["true", "false"]}

_BEARER: Final = "bearer"
_BASIC: Final = "basic"

_STATUSES: Final = {
    200: "Success.",
    201: "It was added.",
    400: "The request cannot be read.",
    401: "The token is missing or wrong.",
    403: "No administrator is configured.",
    404: "There is none of that name.",
    409: "It cannot be done now; `reason` says why.",
    413: "The request is too large.",
    421: "The Host header names another host.",
    503: "Not possible now; try again.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiOperation:
    """The documentation of one HTTP method of one path of the web port."""

    summary: str
    answer: Any = None
    """The type of the document of a success; None for any JSON object."""
    status: int = 200
    media_type: str = _JSON
    body: Any = None
    """The type of the document that is sent; None for none."""
    query: Mapping[str, Mapping[str, Any]] | None = None
    """Schemas of the parameters."""
    errors: tuple[int, ...] = ()
    """Statuses of errors besides those that every request may be answered with."""
    is_open: bool = False
    """Whether it asks for no token and takes any Host."""
    is_admin: bool = False
    """Whether it takes the administrator's token."""


_VERSION: Final = {"version": _TEXT}
_STREAMS: Final = {"stream": {"type": "array", "items": _TEXT}}

OPERATIONS: Final[Mapping[tuple[str, str], ApiOperation]] = {
    ("GET", "/api/v1/models"): ApiOperation(summary="All models.", answer=schema.ModelsDocument),
    ("GET", "/api/v1/models/{id}"): ApiOperation(
        summary="A model: the version that was updated last, or the one that is named.",
        answer=schema.ModelDocument,
        query=_VERSION,
        errors=(404,),
    ),
    ("GET", "/api/v1/references/{id}"): ApiOperation(
        summary="The reference that a model is compared with.",
        answer=schema.ReferenceDocument,
        query={**_VERSION, "partial": _FLAG},
        errors=(404, 409),
    ),
    ("POST", "/api/v1/relearn/{id}"): ApiOperation(
        summary="Has references of a model learned again.",
        answer=schema.RelearnedDocument,
        query={**_VERSION, **_STREAMS},
        errors=(401, 403, 404, 409),
        is_admin=True,
    ),
    ("GET", "/api/v1/alerts"): ApiOperation(summary="Alerts.", answer=schema.AlertsDocument),
    ("GET", "/api/v1/silences"): ApiOperation(summary="Silences.", answer=schema.SilencesDocument),
    ("POST", "/api/v1/silences"): ApiOperation(
        summary="Adds a silence that begins now.",
        answer=schema.AddedSilenceDocument,
        status=201,
        body=schema.SilenceBody,
        errors=(400, 401, 403, 409, 413),
        is_admin=True,
    ),
    ("DELETE", "/api/v1/silences/{id}"): ApiOperation(
        summary="Ends a silence now.",
        answer=schema.SilenceDocument,
        errors=(401, 403, 404, 409),
        is_admin=True,
    ),
    ("GET", "/api/v1/setup"): ApiOperation(summary="How the processor is set up.", answer=schema.SetupDocument),
    ("GET", PATH): ApiOperation(summary="This document."),
    ("GET", "/metrics"): ApiOperation(summary="Metrics for Prometheus.", media_type="text/plain"),
    ("GET", "/healthz"): ApiOperation(summary="Whether it runs.", answer=schema.HealthDocument, is_open=True),
    ("GET", "/readyz"): ApiOperation(
        summary="Whether it accepts telemetry.", answer=schema.HealthDocument, is_open=True, errors=(503,)
    ),
}
"""The documentation of each method and path; pages for people are left out."""


def create_openapi_document(routes: Iterable[BaseRoute], *, version: str) -> dict[str, Any]:
    """Builds the OpenAPI document of the web port's routes, without its web pages.

    Args:
        routes: The routes of the web port.
        version: The release.
    """
    paths: dict[str, dict[str, Any]] = {}
    types = {operation.answer: None for operation in OPERATIONS.values() if operation.answer is not None}
    types |= {operation.body: None for operation in OPERATIONS.values() if operation.body is not None}
    types[schema.ErrorDocument] = None
    schemas, components = msgspec.json.schema_components(list(types), ref_template=_REF)
    by_type = dict(zip(types, schemas, strict=True))
    for method, path in sorted(list_operations(routes)):
        operation = OPERATIONS.get((method, path))
        if operation is not None:
            paths.setdefault(path, {})[method.lower()] = _describe_operation(method, path, operation, by_type)
    return {
        "openapi": OPENAPI,
        "info": {"title": "otel_mlmon processor", "version": version},
        "paths": paths,
        "components": {
            "schemas": {name: _allow_null_numbers(component) for name, component in components.items()},
            "securitySchemes": {
                _BEARER: {"type": "http", "scheme": "bearer"},
                _BASIC: {"type": "http", "scheme": "basic", "description": "The read token as the password."},
            },
        },
    }


def list_operations(routes: Iterable[BaseRoute]) -> set[tuple[str, str]]:
    """Returns method and path of all routes, without HEAD, and with parameters as OpenAPI writes them."""
    return {
        (method, route.path.replace(":path}", "}"))
        for route in routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }


def _describe_operation(method: str, path: str, operation: ApiOperation, by_type: Mapping[Any, Any]) -> dict[str, Any]:
    errors = () if operation.is_open else (401, 421, 503)
    answer = by_type.get(operation.answer, {"type": "object"} if operation.media_type == _JSON else _TEXT)
    failure = answer if operation.is_open else by_type[schema.ErrorDocument]
    responses = {operation.status: (operation.media_type, answer)}
    responses |= dict.fromkeys({*errors, *operation.errors}, (_JSON, failure))
    document: dict[str, Any] = {
        "operationId": f"{method.lower()}_{path.strip('/').replace('/', '_').replace('{', '').replace('}', '')}",
        "summary": operation.summary,
        "parameters": _describe_parameters(path, operation),
        "responses": {
            str(status): {"description": _STATUSES[status], "content": {media_type: {"schema": content}}}
            for status, (media_type, content) in sorted(responses.items())
        },
        "security": [{_BEARER: []}] if operation.is_admin else [{}, {_BEARER: []}, {_BASIC: []}],
    }
    if operation.is_open:
        document["security"] = []
    if operation.body is not None:
        document["requestBody"] = {"required": True, "content": {_JSON: {"schema": by_type[operation.body]}}}
    return document


def _describe_parameters(path: str, operation: ApiOperation) -> list[dict[str, Any]]:
    parameters = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for part in path.split("/")
        if part.startswith("{")
    ]
    return parameters + [
        {"name": name, "in": "query", "schema": dict(content)} for name, content in (operation.query or {}).items()
    ]


def _allow_null_numbers(component: Any) -> Any:
    """Returns a JSON Schema in which every number may be null, as numbers that are not finite are written."""
    if isinstance(component, list):
        return [_allow_null_numbers(part) for part in component]
    if not isinstance(component, dict):
        return component
    changed = {key: _allow_null_numbers(value) for key, value in component.items()}
    return {**changed, "type": ["number", "null"]} if changed.get("type") == "number" else changed
