"""A function's signature as form fields, as JSON Schema, and as what turns stored JSON into its arguments."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import UnionType
from typing import (
    Annotated,
    Any,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError, to_jsonable_python
from typing_extensions import TypedDict

from worker.errors import BadJobDefinition, Invalid
from worker.jobs import limits
from worker.jobs.fields import Field, field_of
from worker.jobs.schema import ArgsValidator, resolve, secret_names, unknown_argument
from worker.jobs.secret import Secret, is_sealed

NOT_GIVEN = inspect.Parameter.empty
ARGS_URI = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True)
class Parameters:
    """What a job takes. Made by `of`; everything derived from it is made when it is first asked for."""

    job_name: str
    signature: inspect.Signature
    hints: Mapping[str, Any]
    """The annotations of the parameters that arguments fill in."""
    rest: tuple[str, Any] | None
    """Name and annotation of `**rest`, which takes arguments of any other name."""
    context: str | None
    dependencies: tuple[str, ...]
    help: Mapping[str, str]

    @classmethod
    def of(cls, function: Callable[..., Any], job_name: str) -> Parameters:
        """Reads a signature.

        Raises:
            BadJobDefinition: a parameter cannot be filled from JSON, or not by name.
        """
        return _Reading(function, job_name).parameters()

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The form fields, in the signature's order."""
        found = [self._field(name) for name in self.hints]
        if self.rest:
            found.append(
                Field(name=self.rest[0], kind="object", rest=True, help=self.help.get(self.rest[0], ""))
            )
        return tuple(found)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of the arguments object."""
        try:
            schema = self._adapter.json_schema(mode="validation", schema_generator=_JsonSchema)
        except (PydanticInvalidForJsonSchema, PydanticUserError) as error:
            raise BadJobDefinition(name=self.job_name, problem=_first_line(error)) from error
        schema.setdefault("properties", {})
        schema.pop("title", None)
        more = self._rest_adapter.json_schema(schema_generator=_JsonSchema) if self._rest_adapter else {}
        schema.setdefault("$defs", {}).update(more.get("$defs", {}))
        return {
            "$schema": ARGS_URI,
            **schema,
            "additionalProperties": more.get("additionalProperties", bool(self.rest)),
        }

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a Python call as JSON, as `.kiq(*args, **kwargs)` gives them."""
        names = list(self.hints)
        if len(args) > len(names):
            raise TypeError(f"{self.job_name} takes {len(names)} arguments, {len(args)} were given")
        given = dict(zip(names, args, strict=False))
        if twice := given.keys() & kwargs.keys():
            raise TypeError(f"{self.job_name} got {min(twice)!r} twice")
        return jsonable({**given, **kwargs})

    def validate(self, args: dict[str, Any]) -> dict[str, Any]:
        """JSON arguments that fit, unchanged; defaults are not filled in.

        Raises:
            Invalid: naming each argument that is missing, unknown or wrong, and what is allowed.
        """
        try:
            text = limits.dump(args)
        except TypeError:
            args = jsonable(args)
            text = limits.dump(args)
        if any(is_sealed(value) for value in args.values()):
            self._validator.check(args, self.job_name)
            return args
        try:
            self._adapter.validate_json(text, strict=True)
            self._bind_rest(args, strict=True)
        except ValidationError as error:
            raise Invalid(self._problems(args, error)) from None
        return args

    def bind(self, args: dict[str, Any]) -> dict[str, Any]:
        """Stored JSON as the values that the function is called with.

        Raises:
            Invalid: as `validate`. The conversion is lenient: "3" is a number where a number is wanted.
        """
        try:
            return {**self._adapter.validate_json(json.dumps(args)), **self._bind_rest(args)}
        except ValidationError as error:
            raise Invalid(self._problems(args, error)) from None

    @cached_property
    def secrets(self) -> frozenset[str]:
        return secret_names(self.schema)

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        members = {
            name: (Required if self._required(name) else NotRequired)[hint]
            for name, hint in self.hints.items()
        }
        make: Any = TypedDict  # made from the signature, so not written out as type checkers want it
        shape = make("Arguments", members)
        shape.__pydantic_config__ = ConfigDict(extra="allow" if self.rest else "forbid")
        try:
            return TypeAdapter(shape)
        except (PydanticSchemaGenerationError, PydanticUserError, TypeError) as error:
            raise BadJobDefinition(name=self.job_name, problem=self._culprit(error)) from error

    @cached_property
    def _rest_adapter(self) -> TypeAdapter[dict[str, Any]] | None:
        return TypeAdapter(dict[str, self.rest[1]]) if self.rest and self.rest[1] is not Any else None  # type: ignore[name-defined]  # the annotation of **rest

    def _bind_rest(self, args: dict[str, Any], strict: bool = False) -> dict[str, Any]:
        """The arguments that only `**rest` takes, as its annotation says."""
        if self._rest_adapter is None:
            return {}
        rest = {name: value for name, value in args.items() if name not in self.hints}
        return self._rest_adapter.validate_json(json.dumps(rest), strict=strict)

    @cached_property
    def _validator(self) -> ArgsValidator:
        return ArgsValidator(self.schema)

    def _required(self, name: str) -> bool:
        return self.signature.parameters[name].default is NOT_GIVEN

    def _field(self, name: str) -> Field:
        part = self.schema["properties"][name]
        default = self.signature.parameters[name].default
        known = {} if default is NOT_GIVEN else self._default(name, default)
        return field_of(
            name, part, self.schema, required=default is NOT_GIVEN,
            help=self.help.get(name, ""), **known,
        )  # fmt: skip

    def _default(self, name: str, default: Any) -> dict[str, Any]:
        """The default as JSON, if it can be shown. A secret's is not."""
        try:
            value = TypeAdapter(self.hints[name]).dump_python(default, mode="json", warnings=False)
            limits.dump({name: value})
        except (PydanticSerializationError, PydanticUserError, Invalid, TypeError, ValueError):
            return {}
        return {"default": value, "has_default": True}

    def _problems(self, args: dict[str, Any], error: ValidationError) -> dict[str, str]:
        """The schema's words where it has some, else pydantic's."""
        if problems := self._validator.problems(args, self.job_name):
            return problems
        found: dict[str, str] = {}
        for each in error.errors(include_url=False, include_context=False, include_input=True):
            path = ".".join(str(part) for part in each["loc"]) or "args"
            secret = str(each["loc"][0]) in self.secrets if each["loc"] else False
            value = "" if secret else f" (it is {limits.shortened(each['input'])})"
            if each["type"] == "extra_forbidden":
                found[path] = unknown_argument(self.job_name, self.hints)
            else:
                found.setdefault(path, f"{each['msg'][:1].lower()}{each['msg'][1:]}{value}")
        return found

    def _culprit(self, error: BaseException) -> str:
        """Which parameter pydantic could not understand."""
        for name, hint in self.hints.items():
            try:
                TypeAdapter(hint)
            except (PydanticSchemaGenerationError, PydanticUserError, TypeError) as found:
                return f"its parameter {name!r} cannot be filled from JSON: {_first_line(found)}"
        return _first_line(error)


def jsonable(args: Mapping[str, Any]) -> dict[str, Any]:
    """Python values as JSON; a Secret gives its value, to be sealed next."""
    plain = {name: value.reveal() if isinstance(value, Secret) else value for name, value in args.items()}
    try:
        return dict(to_jsonable_python(plain))
    except (PydanticSerializationError, ValueError) as error:
        for name, value in plain.items():
            try:
                to_jsonable_python(value)
            except (PydanticSerializationError, ValueError):
                raise Invalid({name: f"cannot be written as JSON: it is a {type(value).__name__}"}) from error
        raise


class _JsonSchema(GenerateJsonSchema):
    """Names a Decimal, which JSON Schema has no word for."""

    def decimal_schema(self, schema: Any) -> dict[str, Any]:
        return {"anyOf": [{"type": "number"}, {"type": "string", "format": "decimal"}]}


class _Reading:
    """Goes through one function's parameters and refuses what a stored job could not fill in."""

    def __init__(self, function: Callable[..., Any], job_name: str) -> None:
        self.function = function
        self.job_name = job_name
        self.signature = inspect.signature(function)
        self.hints = self._resolve()

    def parameters(self) -> Parameters:
        contexts: list[str] = []
        dependencies: list[str] = []
        hints: dict[str, Any] = {}
        rest = None
        for name, parameter in self.signature.parameters.items():
            hint = self.hints.get(name, Any)
            self._refuse(parameter)
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = (name, hint)
            elif _is_context(hint):
                contexts.append(name)
            elif _is_dependency(parameter.default) or any(map(_is_dependency, get_args(hint)[1:])):
                dependencies.append(name)
            else:
                hints[name] = _or_none(hint) if parameter.default is None else hint
        if len(contexts) > 1:
            self.refuse(f"its parameters {' and '.join(contexts)} are both a JobContext")
        return Parameters(
            job_name=self.job_name, signature=self.signature, hints=hints, rest=rest,
            context=contexts[0] if contexts else None, dependencies=tuple(dependencies),
            help=_parameter_help(inspect.getdoc(self.function) or ""),
        )  # fmt: skip

    def refuse(self, problem: str) -> None:
        raise BadJobDefinition(name=self.job_name, problem=problem)

    def _refuse(self, parameter: inspect.Parameter) -> None:
        if parameter.kind is parameter.VAR_POSITIONAL:
            self.refuse(f"it takes *{parameter.name}: arguments are stored by name, so list them one by one")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            self.refuse(f"its parameter {parameter.name!r} is positional-only: arguments are given by name")

    def _resolve(self) -> dict[str, Any]:
        try:
            return get_type_hints(self.function, include_extras=True)
        except Exception as error:
            raise BadJobDefinition(
                name=self.job_name,
                problem=f"its annotations cannot be read ({error}); they must be importable where the job is defined, "
                "not only under TYPE_CHECKING",
            ) from error


def _or_none(hint: Any) -> Any:
    """`a: int = None` means `a: int | None = None`."""
    return hint if hint is Any else Union[hint, None]  # noqa: UP007  # `|` fails for some annotations


def _is_context(hint: Any) -> bool:
    from worker.jobs.context import JobContext

    branches = get_args(hint) if get_origin(hint) in (Union, UnionType, Annotated) else (hint,)
    return any(isinstance(branch, type) and issubclass(branch, JobContext) for branch in branches)


def _is_dependency(value: Any) -> bool:
    return type(value).__module__.startswith("taskiq_dependencies") and type(value).__name__ == "Dependency"


def _parameter_help(doc: str) -> dict[str, str]:
    """The lines of a docstring's `Args:` section: `name: what it is`."""
    found: dict[str, str] = {}
    _, _, section = doc.partition("Args:\n")
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        name, colon, words = line.strip().partition(":")
        name = name.partition(" ")[0]
        if colon and name.isidentifier():
            found[name] = words.strip()
        elif found and line.strip():
            last = next(reversed(found))
            found[last] = f"{found[last]} {line.strip()}"
    return found


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def nested_secret(parameters: Parameters) -> str | None:
    """The name of a parameter that holds a secret inside, where it would not be encrypted."""
    schema = parameters.schema
    for name, part in schema["properties"].items():
        if name not in parameters.secrets and _mentions_secret(part, schema, set()):
            return str(name)
    return None


def _mentions_secret(part: Any, schema: dict[str, Any], seen: set[str]) -> bool:
    if isinstance(part, list):
        return any(_mentions_secret(each, schema, seen) for each in part)
    if not isinstance(part, dict):
        return False
    reference = part.get("$ref")
    if isinstance(reference, str) and reference not in seen:
        seen.add(reference)
        if _mentions_secret(resolve(schema, part), schema, seen):
            return True
    return part.get("writeOnly") is True or any(
        _mentions_secret(each, schema, seen) for each in part.values()
    )
