"""The job list's address: what it asks for, as a filter, as chips, and as the addresses that differ by one thing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from litestar.datastructures import MultiDict

from webapp.pages.shared import address
from webapp.queries.job_logs import SORTS
from worker.errors import Invalid
from worker.joblogs.search import STATUSES, JobFilter, Token, from_tokens, parse

PATH = "/job-logs"
COLUMNS = {"queue": "Queue", "age": "Age", "took": "Took", "attempt": "Attempt"}


Params = MultiDict[Any]
"""The query of a request."""


@dataclass(frozen=True, slots=True)
class Place:
    """One state of the job list. `status` is the tab, `tokens` the chips, `text` what stands in the search box."""

    status: str = ""
    tokens: tuple[Token, ...] = ()
    text: str = ""
    sort: str = "enqueued"
    hidden: tuple[str, ...] = ()
    cursor: str = ""
    problems: tuple[str, ...] = ()
    wanted: JobFilter = field(default_factory=JobFilter)

    @property
    def query(self) -> str:
        """The whole filter in the search language."""
        return self.wanted.query()

    @property
    def filtered(self) -> bool:
        return not self.wanted.empty or bool(self.problems)

    def pairs(self, **changes: Any) -> list[tuple[str, str]]:
        """The query of this place with some parts changed; a change of the filter goes back to the first page."""
        if changes.keys() - {"cursor"} and "cursor" not in changes:
            changes["cursor"] = ""
        place = replace(self, **changes)
        return [
            ("status", place.status),
            *(("f", str(token)) for token in place.tokens),
            ("q", place.text),
            ("sort", place.sort if place.sort != "enqueued" else ""),
            ("hide", ",".join(place.hidden)),
            ("cursor", place.cursor),
        ]

    def href(self, path: str = PATH, **changes: Any) -> str:
        return address(path, self.pairs(**changes))


def read_place(params: Params, now: datetime) -> Place:
    """The place that an address names.

    Raises:
        Invalid: naming a sort or a status that does not exist.
    """
    sort = params.get("sort") or "enqueued"
    if sort not in SORTS:
        raise Invalid({"sort": f"{sort[:40]!r} is not known. Allowed are {', '.join(SORTS)}"})
    status = params.get("status") or ""
    if status and status not in STATUSES:
        raise Invalid({"status": f"{status[:40]!r} is not known. Allowed are {', '.join(STATUSES)}"})
    kept = [token for text in params.getall("f", []) for token in parse(text, now).tokens]
    place = Place(status, tuple(kept), sort=sort, hidden=_hidden(params), cursor=params.get("cursor") or "")
    return _with_typed(place, params.get("q") or "", now)


def _with_typed(place: Place, typed: str, now: datetime) -> Place:
    """Words that were understood become the tab or chips; the rest stays in the box, and so does all of a mistake."""
    found = parse(typed, now)
    if found.problems:
        wanted = from_tokens([*_status(place), *place.tokens], now)
        return replace(place, text=typed, problems=found.problems, wanted=wanted)
    for token in found.tokens:
        if token.word.lower() == "status" and token.value.lower() in STATUSES:
            place = replace(place, status=token.value.lower())
        elif token.word and token not in place.tokens:
            place = replace(place, tokens=(*place.tokens, token))
    words = [token for token in found.tokens if not token.word]
    wanted = from_tokens([*_status(place), *place.tokens, *words], now)
    text = " ".join(str(token) for token in words)
    return replace(place, text=text, wanted=wanted, problems=wanted.problems)


def _status(place: Place) -> Iterable[Token]:
    return [Token("status", place.status)] if place.status else []


def _hidden(params: Params) -> tuple[str, ...]:
    if params.get("columns"):
        shown = params.getall("show", [])
        return tuple(key for key in COLUMNS if key not in shown)
    hidden = (params.get("hide") or "").split(",")
    return tuple(key for key in COLUMNS if key in hidden)


# What the templates draw of it


def tabs(place: Place, counts: Mapping[str, int | None], words: Mapping[str, str]) -> list[dict[str, Any]]:
    """All, then every status that holds something; a count that would cost too much is left out."""
    found: list[dict[str, Any]] = [{"key": "", "label": "All", "href": place.href(status=""), "count": None}]
    for status in STATUSES:
        count = counts.get(status)
        if count == 0 and status != place.status:
            continue
        found.append(
            {
                "key": status,
                "label": status.capitalize(),
                "href": place.href(status=status),
                "count": words.get(status) or None,
            }
        )
    return found


def chips(place: Place) -> list[dict[str, str]]:
    return [
        {
            "key": token.word,
            "value": token.value,
            "remove_href": place.href(tokens=tuple(other for other in place.tokens if other != token)),
        }
        for token in place.tokens
    ]


def columns(place: Place) -> list[dict[str, Any]]:
    return [{"key": key, "label": label, "shown": key not in place.hidden} for key, label in COLUMNS.items()]


def hidden_inputs(place: Place, *, leave: Sequence[str]) -> list[tuple[str, str]]:
    """The rest of the address, for a form that sets the parts named in `leave`."""
    return [(name, value) for name, value in place.pairs() if value and name not in (*leave, "cursor")]
