"""The child process that evaluates what people wrote: `python -I evaluator.py BYTES SECONDS`, one JSON line in, one out.

It has no environment, no database, no network and no files, so many bytes of memory and, for each question, so many
seconds of processor time. Beyond that the kernel ends it, and `sandbox` starts another. Nothing of this project is
imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import IO, Any, Final

import jmespath
from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_SHOWN: Final = 1000
"""So many characters of a value or an error are told."""
MOST_BODY: Final = 262_144
"""The largest body a template may make, in bytes."""
_STATEMENTS: Final = {
    nodes.Macro: "macro", nodes.CallBlock: "call", nodes.FilterBlock: "filter", nodes.AssignBlock: "set … endset",
    nodes.Include: "include", nodes.Import: "import", nodes.FromImport: "from", nodes.Extends: "extends",
    nodes.Block: "block",
}  # fmt: skip
"""What would give out text that is escaped already, or read files."""
_MISSING: Final = re.compile(r"^'(?:dict object|None)' has no attribute '(.*)'$|^'(.*)' is undefined$")


class Json(str):
    """JSON that is written as it is."""

    __slots__ = ()


def main() -> None:
    """Answers questions until its input ends."""
    memory_bytes, cpu_s = int(sys.argv[1]), float(sys.argv[2])
    questions, answers = sys.stdin.buffer, _take_stdout()
    _warm_up()
    _bound(memory_bytes)
    _say(answers, {"ready": True})
    for line in questions:
        _say(answers, _answer(line, cpu_s))


def _answer(line: bytes, cpu_s: float) -> dict[str, Any]:
    _clock(cpu_s)
    try:
        question = json.loads(line)
        return _ASKED[question["ask"]](question)
    except MemoryError:
        return {"error": "needs more memory than it may have", "spent": True}
    except RecursionError:
        return {"error": "nests too deeply"}
    finally:
        _clock(0)


def condition(question: dict[str, Any]) -> dict[str, Any]:
    """Whether the value of the expression is true: all but false, null and what is empty."""
    try:
        value = _expression(question["source"]).search(question["event"])
    except jmespath.exceptions.JMESPathError as error:
        return {"error": _short(error)}
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        return {"error": f"cannot be evaluated: {_short(error)}"}
    return {
        "matched": value is not None and value is not False and value not in ("", [], {}),
        "value": _shown(value),
    }


def render(question: dict[str, Any]) -> dict[str, Any]:
    """The body that the template makes, which must be JSON."""
    event = question["event"]
    names = {**event, "event": event, **question["about"]}
    try:
        body = _template(question["source"]).render(names)
    except UndefinedError as error:
        return {"error": _MISSING.sub(r"the event has no \1\2", _short(error))}
    except TemplateError as error:
        return {"error": _short(error)}
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        return {"error": f"cannot be rendered: {_short(error)}"}
    return _judged(body)


def check(question: dict[str, Any]) -> dict[str, Any]:
    """Whether an expression or a template can be read at all."""
    try:
        (_expression if question["kind"] == "condition" else _template)(question["source"])
    except jmespath.exceptions.JMESPathError as error:
        return {"error": _short(error)}
    except TemplateSyntaxError as error:
        return {"error": f"line {error.lineno}: {_short(error.message or error)}"}
    except TemplateError as error:
        return {"error": _short(error)}
    return {"ok": True}


_ASKED: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "condition": condition,
    "render": render,
    "check": check,
}


@lru_cache(maxsize=256)
def _expression(source: str) -> Any:
    return jmespath.compile(source)


@lru_cache(maxsize=256)
def _template(source: str) -> Any:
    tree = _environment().parse(source)
    for kind, name in _STATEMENTS.items():
        if (found := next(tree.find_all(kind), None)) is not None:
            raise SecurityError(f"line {found.lineno}: {{% {name} %}} is not available here")
    return _environment().from_string(source)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, finalize=_written, keep_trailing_newline=True
    )
    made.globals = {"range": made.globals["range"], "dict": dict}
    made.filters["tojson"] = lambda value, indent=None: Json(_json(value))
    for unsafe in ("pprint", "xmlattr", "urlize", "escape", "e", "forceescape", "safe"):
        made.filters.pop(unsafe)
    return made


def _written(value: Any) -> Any:
    """An expression's value inside the JSON text: a string without its quotes, everything else as JSON."""
    if isinstance(value, Json | StrictUndefined):
        return value
    if isinstance(value, str):
        return _json(value)[1:-1]
    return _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=list)


def _judged(body: str) -> dict[str, Any]:
    try:
        size = len(body.encode())
        json.loads(body)
    except UnicodeEncodeError:
        return {"error": "made text with a lone surrogate, which is not a character"}
    except ValueError as error:
        return {"error": f"did not make JSON: {_short(error)}", "text": body[:MOST_SHOWN]}
    if size > MOST_BODY:
        return {"error": f"made {size} bytes; {MOST_BODY} is the most"}
    return {"body": body}


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 1] + "…"


def _short(error: object) -> str:
    return " ".join(str(error).split())[:MOST_SHOWN] or type(error).__name__


def _warm_up() -> None:
    """Loads what questions may come to need: later no file can be opened."""
    for name in (
        "encodings.unicode_escape",
        "html",
        "html.entities",
        "random",
        "textwrap",
        "unicodedata",
        "urllib.parse",
    ):
        import_module(name)
    event = {"event_type": "a.b", "data": {"x": ["é"]}}
    render(
        {
            "source": "{% for x in data.x %}{{ x | upper | tojson }}{{ 'y' ~ x }}{% endfor %}",
            "event": event,
            "about": {},
        }
    )
    condition({"source": "sort(data.x)[0] == 'a' && length(@) > `1`", "event": event})
    check({"kind": "template", "source": "{{"})


def _bound(memory_bytes: int) -> None:
    """No more memory, no files, no dumps. Windows knows no such bounds: there the clock alone limits."""
    with contextlib.suppress(ImportError):
        import resource

        for what, most in (
            (resource.RLIMIT_AS, memory_bytes),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_FSIZE, 0),
        ):
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(what, (most, most))
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def _clock(seconds: float) -> None:
    """The kernel ends this process when it has computed for so long; 0 stops the clock."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _take_stdout() -> IO[bytes]:
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return pipe


def _say(pipe: IO[bytes], message: dict[str, Any]) -> None:
    pipe.write(json.dumps(message).encode() + b"\n")
    pipe.flush()


if __name__ == "__main__":
    main()
