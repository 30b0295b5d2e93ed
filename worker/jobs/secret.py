"""Secret parameters: encrypted when a job is enqueued, opened only at the call, masked everywhere else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, get_args
from urllib.parse import quote

from worker.errors import Invalid, SecretUnreadable

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

T = TypeVar("T")
V = TypeVar("V")

MASK = "••••••"
TAG = "$secret"
SHORTEST = 3
"""Values shorter than this are not looked for in texts: replacing every "7" would tell more than it hides."""


class Secret(Generic[T]):
    """A value that is not shown: `key: Secret[str]` in a job's signature. `key.reveal()` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and bool(self._value == other._value)

    def __hash__(self) -> int:
        return hash(self._value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        inner = handler.generate_schema((get_args(source) or (str,))[0])
        wrapped = core_schema.no_info_after_validator_function(cls, inner)
        return core_schema.json_or_python_schema(
            json_schema=wrapped,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), wrapped]),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda _: MASK),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        inner = handler(schema)
        return {
            **inner,
            "writeOnly": True,
            **({"format": "password"} if inner.get("type") == "string" else {}),
        }


class SecretField(Protocol):
    """As much of a form field as this module needs to know."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...


def is_sealed(value: Any) -> bool:
    """Whether a value is the stored form of a secret: `{"$secret": "<token>"}`."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(TAG), str)


def names(fields: Iterable[SecretField]) -> frozenset[str]:
    return frozenset(field.name for field in fields if field.kind == "secret")


def seal(fields: Iterable[SecretField], args: dict[str, Any], key: str) -> dict[str, Any]:
    """The arguments with each secret encrypted. One that is sealed already stays, if this key opens it."""
    from worker.accounts import crypto

    secrets = names(fields) & args.keys()
    if not secrets:
        return args
    sealed = dict(args)
    for name in secrets:
        if is_sealed(args[name]):
            _unseal(name, args[name], key)
        elif args[name] is not None:
            sealed[name] = {TAG: crypto.encrypt(key, json.dumps(args[name]))}
    return sealed


def open_args(
    fields: Iterable[SecretField], args: dict[str, Any], key: str
) -> tuple[dict[str, Any], Redactor]:
    """The arguments as the function gets them, and what takes their secrets out of everything it says.

    Raises:
        Invalid: a secret was encrypted with another M_SECRET_KEY.
    """
    sealed = [name for name in names(fields) if is_sealed(args.get(name))]
    if not sealed:
        return args, NOTHING_SECRET
    opened = {name: _unseal(name, args[name], key) for name in sealed}
    return {**args, **opened}, Redactor(opened.values())


def mask(value: V) -> V:
    """A copy for eyes: every sealed secret, however deep, shows as dots."""
    return _masked(value)  # type: ignore[no-any-return]  # dicts stay dicts, lists stay lists


def keep(fields: Iterable[SecretField], args: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """Edited arguments in which a secret that came back masked or empty is the stored one."""
    kept = {
        name: stored[name]
        for name in names(fields)
        if is_sealed(stored.get(name)) and args.get(name) in ("", MASK, {TAG: MASK}, stored[name])
    }
    return {**args, **kept}


class Redactor:
    """Replaces secret values in whatever is about to be written. Redact first, truncate afterwards."""

    def __init__(self, values: Iterable[Any]) -> None:
        forms = sorted({form for value in values for form in _forms(value)}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, forms))) if forms else None

    def __bool__(self) -> bool:
        return self._pattern is not None

    def text(self, text: str) -> str:
        """The text with each secret replaced, also where it stands escaped in a repr, in JSON or in a URL."""
        return self._pattern.sub(MASK, text) if self._pattern else text

    def value(self, value: V) -> V:
        """A copy of a value as JSON with the secrets replaced in its texts, keys and numbers."""
        return self._deep(value) if self._pattern else value

    def _deep(self, value: Any) -> Any:
        value = _as_json(value)
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self._deep(key): self._deep(child) for key, child in value.items()}
        if isinstance(value, list | tuple):
            return [self._deep(child) for child in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return MASK if self.text(str(value)) != str(value) else value
        return value


def _as_json(value: Any) -> Any:
    """What a dataclass, a model or a set becomes when it is stored; what cannot be stored is left for others to refuse."""
    if value is None or isinstance(value, str | int | float | dict | list | tuple):
        return value
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        return to_jsonable_python(value)
    except (PydanticSerializationError, ValueError):
        return value


NOTHING_SECRET = Redactor(())


def _unseal(name: str, value: dict[str, str], key: str) -> Any:
    from worker.accounts import crypto

    try:
        return json.loads(crypto.decrypt(key, value[TAG]))
    except SecretUnreadable as error:
        raise Invalid(
            {name: "cannot be decrypted: it was encrypted with another M_SECRET_KEY, or altered"}
        ) from error


def _masked(value: Any) -> Any:
    if is_sealed(value):
        return MASK
    if isinstance(value, dict):
        return {key: _masked(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_masked(child) for child in value]
    return value


def _forms(value: Any) -> Iterator[str]:
    """The texts that would give a secret away: itself, its lines, and each as Python, JSON and URLs write it."""
    for text in _leaves(value):
        for part in (text, text.strip(), *(line for line in text.splitlines() if len(line) >= 8)):
            written = (
                part,
                repr(part)[1:-1],
                json.dumps(part)[1:-1],
                json.dumps(part, ensure_ascii=False)[1:-1],
            )
            yield from (form for form in (*written, quote(part), quote(part, "")) if len(form) >= SHORTEST)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for child in value.values():
            yield from _leaves(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _leaves(child)
    elif value is not None and not isinstance(value, bool):
        yield str(value)
