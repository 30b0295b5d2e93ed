"""Describes each route in OpenAPI 3.1 from the Structs that its handler reads, with examples and the ways to fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import msgspec
from litestar.openapi.spec import (
    Example,
    OpenAPIMediaType,
    OpenAPIResponse,
    Operation,
    Parameter,
    RequestBody,
    Schema,
)

PROBLEMS = {
    400: "The request cannot be understood",
    401: "No token, or one that is wrong, expired or revoked",
    403: "The token's role is too low",
    404: "There is no such thing",
    409: "Not possible as things stand",
    413: "The body is too large",
    415: "The body is not application/json",
    422: "Fields that are not allowed, each named",
    429: "Too much at once: the queue is full, or tests are sent too often",
    503: "Something that is needed does not answer: try again",
}
PROBLEM_EXAMPLE = {
    "type": "about:blank",
    "title": "Unprocessable Content",
    "status": 422,
    "detail": "limit: 1000 is not allowed; it must be a whole number from 1 to 200",
    "errors": [{"field": "limit", "detail": "1000 is not allowed; it must be a whole number from 1 to 200"}],
}


def documented(
    *,
    answer: Any,
    query: type[msgspec.Struct] | None = None,
    body: type[msgspec.Struct] | None = None,
    example: Any = None,
    optional_body: bool = False,
    headers: dict[str, str] | None = None,
    also: dict[int, str] | None = None,
    problems: tuple[int, ...] = (),
) -> type[Operation]:
    """The operation class of a route.

    `answer` and `example` are what it answers to what body; `headers` are those it reads; `also` are further
    statuses with the same answer; `problems` are its own ways to fail, beside those that all routes have.
    """

    @dataclass
    class Documented(Operation):
        def __post_init__(self) -> None:
            self.parameters = [
                *(self.parameters or []),
                *_query_parameters(query),
                *_header_parameters(headers or {}),
            ] or None
            if body is not None:
                self.request_body = _request_body(body, example, required=not optional_body)
            usual = (401, 403, *((422,) if query or body else ()), *((413, 415) if body else ()))
            _describe_responses(self, answer, also or {}, (*usual, *problems))

    return Documented


class _Example(Example):
    """An example whose nulls stay: Litestar leaves what is None out of the document."""

    def to_schema(self) -> dict[str, Any]:
        return {"value": self.value}


def _query_parameters(kind: type[msgspec.Struct] | None) -> list[Parameter]:
    if kind is None:
        return []
    described = _json_schema(kind)
    return [
        Parameter(
            name=name,
            param_in="query",
            schema=_raw(schema),
            description=schema.get("description"),
            required=name in described.get("required", ()),
            style="form" if schema.get("type") == "array" else None,
            explode=schema.get("type") == "array" or None,
        )
        for name, schema in described["properties"].items()
    ]


def _header_parameters(headers: dict[str, str]) -> list[Parameter]:
    return [
        Parameter(name=name, param_in="header", schema=_raw({"type": "string"}), description=text)
        for name, text in headers.items()
    ]


def _request_body(kind: type[msgspec.Struct], example: Any, *, required: bool) -> RequestBody:
    media = OpenAPIMediaType(schema=_raw(_json_schema(kind)), examples={"example": _Example(value=example)})
    return RequestBody(content={"application/json": media}, required=required)


def _describe_responses(
    operation: Operation, answer: Any, also: dict[int, str], problems: tuple[int, ...]
) -> None:
    responses = operation.responses or {}
    [(status, success)] = [(status, found) for status, found in responses.items() if status.startswith("2")]
    assert isinstance(success, OpenAPIResponse)
    for media in (success.content or {}).values():
        media.examples = {"example": _Example(value=answer)}
    operation.responses = {status: success}
    for code, text in also.items():
        operation.responses[str(code)] = OpenAPIResponse(description=text, content=success.content)
    for code in sorted(set(problems)):
        media = OpenAPIMediaType(schema=_raw(_PROBLEM), examples={"example": _Example(value=_problem(code))})
        operation.responses[str(code)] = OpenAPIResponse(
            description=PROBLEMS[code], content={"application/problem+json": media}
        )


def _problem(code: int) -> dict[str, Any]:
    if code == 422:
        return PROBLEM_EXAMPLE
    return {"type": "about:blank", "title": PROBLEMS[code], "status": code, "detail": PROBLEMS[code] + "."}


_PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "Problem Details (RFC 9457)",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}


def _json_schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The Struct's JSON Schema in one piece: an operation's own schemas are not shared by name."""
    [found], components = msgspec.json.schema_components([kind], ref_template="{name}")
    inlined: dict[str, Any] = _inline(found, components)
    return inlined | {"additionalProperties": False}


def _inline(schema: Any, components: dict[str, Any]) -> Any:
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inline(components[schema["$ref"]], components)
        return {key: _inline(value, components) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_inline(item, components) for item in schema]
    return schema


def _raw(schema: dict[str, Any]) -> Schema:
    """JSON Schema goes into the document as it is."""
    return cast("Schema", schema)
