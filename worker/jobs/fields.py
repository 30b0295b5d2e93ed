"""A parameter as a form draws it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from worker.jobs.schema import resolve

BY_FORMAT = {
    "date": "date", "date-time": "datetime", "time": "time", "uuid": "uuid", "duration": "duration",
}  # fmt: skip
BY_TYPE = {
    "string": "text", "integer": "integer", "number": "number", "boolean": "boolean", "array": "list",
    "object": "object",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter of a job.

    `kind` is text, integer, number, boolean, date, datetime, time, duration, decimal, enum, uuid, list, object, json
    or secret. A list has its `item`, an object of known shape its `fields`.
    """

    name: str
    kind: str
    required: bool = False
    nullable: bool = False
    has_default: bool = False
    default: Any = None
    help: str = ""
    choices: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    max_length: int | None = None
    item: Field | None = None
    fields: tuple[Field, ...] = ()
    rest: bool = False
    """It stands for `**kwargs`: an object whose entries become arguments of their own."""
    schema: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.name.replace("_", " ").strip().capitalize() or self.name

    def as_json(self) -> dict[str, Any]:
        """As it stands in the catalogue's `parameters`: only what differs from a plain optional text."""
        full = {**asdict(self), "label": self.label}
        full["item"] = self.item.as_json() if self.item else None
        full["fields"] = [inner.as_json() for inner in self.fields]
        full["choices"] = list(self.choices)
        if not self.has_default:
            full.pop("default")
        return full

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Field:
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        known["item"] = cls.from_json(data["item"]) if data.get("item") else None
        known["fields"] = tuple(cls.from_json(inner) for inner in data.get("fields", ()))
        known["choices"] = tuple(data.get("choices", ()))
        return cls(**known)


def field_of(
    name: str,
    part: dict[str, Any],
    root: dict[str, Any],
    *,
    depth: int = 0,
    **known: Any,
) -> Field:
    """The field for one property of a JSON Schema."""
    shape, nullable = _without_null(resolve(root, part), root)
    kind = _kind(shape)
    own_words = "" if kind == "object" else shape.get("description", "")  # an object's tells of its class
    known["help"] = known.get("help") or own_words
    return Field(
        name=name, kind=kind, nullable=nullable, choices=_choices(shape),
        minimum=shape.get("minimum", shape.get("exclusiveMinimum")),
        maximum=shape.get("maximum", shape.get("exclusiveMaximum")),
        max_length=shape.get("maxLength"),
        item=_item(shape, root, depth) if kind == "list" else None,
        fields=_inner(shape, root, depth) if kind == "object" else (),
        schema=part, **known,
    )  # fmt: skip


def _without_null(shape: dict[str, Any], root: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    branches = [resolve(root, branch) for branch in shape.get("anyOf", ())]
    real = [branch for branch in branches if branch.get("type") != "null"]
    nullable = len(real) < len(branches) or shape.get("type") == "null"
    outer = {key: value for key, value in shape.items() if key != "anyOf"}
    return ({**real[0], **outer}, nullable) if len(real) == 1 else (shape, nullable)


def _kind(shape: dict[str, Any]) -> str:
    if shape.get("writeOnly"):
        return "secret"
    if "enum" in shape or "const" in shape:
        return "enum"
    kind = BY_FORMAT.get(shape.get("format", "")) if shape.get("type") == "string" else None
    if any(branch.get("format") == "decimal" for branch in shape.get("anyOf", ())):
        return "decimal"
    return kind or BY_TYPE.get(str(shape.get("type")), "json")


def _choices(shape: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(shape["enum"]) if "enum" in shape else (shape["const"],) if "const" in shape else ()


def _item(shape: dict[str, Any], root: dict[str, Any], depth: int) -> Field | None:
    inner = shape.get("items")
    return (
        field_of("item", inner, root, depth=depth + 1)
        if isinstance(inner, dict) and inner and depth < 8
        else None
    )


def _inner(shape: dict[str, Any], root: dict[str, Any], depth: int) -> tuple[Field, ...]:
    if depth >= 8:  # a type that contains itself
        return ()
    required = shape.get("required", ())
    return tuple(
        field_of(name, part, root, depth=depth + 1, required=name in required, **_inner_default(part))
        for name, part in shape.get("properties", {}).items()
    )


def _inner_default(part: dict[str, Any]) -> dict[str, Any]:
    return {"has_default": True, "default": part["default"]} if "default" in part else {}
