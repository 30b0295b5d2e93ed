"""What goes wrong, as an answer: one table from error to status, and a page, a fragment or a problem+json of it."""

from __future__ import annotations

import sqlite3
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlsplit

import structlog
from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotAuthorizedException,
    NotFoundException,
)
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from webapp import render
from webapp.security import is_api, peer, printable
from worker import errors as desk

log = structlog.get_logger(__name__)

AnyRequest = Request[Any, Any, Any]

STATUSES: Final[dict[type[desk.DeskError], int]] = {
    desk.NotFound: 404,
    desk.Denied: 403,
    desk.WrongPassword: 403,
    desk.Invalid: 422,
    desk.IdempotencyMismatch: 422,
    desk.NotAllowedNow: 409,
    desk.TooLate: 409,
    desk.ChangedMeanwhile: 409,
    desk.OwnedByCode: 409,
    desk.DeliveryBusy: 409,
    desk.WorkerLeaving: 409,
    desk.WebhookOff: 409,
    desk.ReplayEnded: 409,
    desk.KeyHeld: 409,
    desk.KeyBusy: 409,
    desk.StaleEpoch: 409,
    desk.AlreadySetUp: 409,
    desk.QueueFull: 429,
    desk.BusAway: 503,
    desk.EvaluationAway: 503,
    desk.Throttled: 429,
    desk.BadCredentials: 401,
    desk.SetupClosed: 410,
    desk.DatabaseUnavailable: 503,
    desk.DatabaseOutdated: 503,
}
"""An error that is not here, nor a parent of it, is a mistake of ours: 500."""

PHRASES: Final = {
    404: "Not found",
    403: "Not allowed",
    422: "Not accepted",
    429: "Too many at once",
    413: "Too large",
}
AWAY: Final = "The database does not answer. Try again."
LOCKED: Final = "The database is locked by another program. Nothing was changed. Try again."
READ_ONLY: Final = "The database takes no writes now: it is read-only. Nothing was changed."
READ_ONLY_STATE: Final = "25006"
"""PostgreSQL's, as on a standby."""
HIDDEN: Final = "Something went wrong here. It is written in the log under the id below."


class Problem:
    """An error as its reader sees it."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        fields: dict[str, str] | None = None,
    ) -> None:
        self.status = status
        self.title = PHRASES.get(status) or HTTPStatus(status).phrase
        self.detail = detail
        self.headers = headers or {}
        self.fields = fields or {}


def respond(request: AnyRequest, error: Exception) -> Response[Any]:
    """The answer for an error, in the form that this caller reads."""
    problem = _problem(_to_a_stranger(error) if _is_stranger(request) else error)
    if problem.status >= 500:
        _log(request, error, problem)
    try:
        return _in_the_callers_form(request, problem)
    except Exception:
        log.exception("the error page failed", error_id=peer(request).request_id)
        return Response(problem.title, status_code=problem.status, media_type="text/plain; charset=utf-8")


def _in_the_callers_form(request: AnyRequest, problem: Problem) -> Response[Any]:
    if is_api(request.url.path) or request.url.path.startswith(("/schema", "/healthz", "/readyz")):
        return _as_json(request, problem)
    if problem.status == 401:
        return _to_sign_in(request)
    if request.headers.get("hx-request"):
        return render.error_fragment(request, problem.status, _words(problem), problem.headers)
    return render.error_page(
        request, problem.status, problem.title, _words(problem), problem.headers, back_href=_back(request)
    )


def _is_stranger(request: AnyRequest) -> bool:
    return is_api(request.scope["path"]) and request.scope["user"] is None


def _to_a_stranger(error: Exception) -> Exception:
    """Who brings no token does not learn which addresses the API has."""
    if isinstance(error, NotFoundException | MethodNotAllowedException):
        return NotAuthorizedException(
            detail="Sign in, or send a valid token as Authorization: Bearer <token>."
        )
    return error


def _problem(error: Exception) -> Problem:
    if isinstance(error, desk.DeskError):
        status = next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)
        if status == 500:
            return Problem(500, HIDDEN)
        headers = {"Retry-After": str(error.facts.get("retry_after_s", 1))} if error.retriable else {}
        detail = AWAY if isinstance(error, desk.DatabaseUnavailable) else error.message
        return Problem(status, detail, headers=headers, fields=getattr(error, "problems", None))
    if isinstance(error, HTTPException) and error.status_code < 500:
        return Problem(
            error.status_code, _public_words(error), headers=dict(error.headers or {}), fields=_fields(error)
        )
    if words := _database_trouble(error):
        return Problem(503, words, headers={"Retry-After": "1"})
    return Problem(500, HIDDEN)


def _database_trouble(error: Exception) -> str | None:
    """What keeps the database from doing it, where that is not this program's fault."""
    said = getattr(error, "orig", None)
    if isinstance(said, sqlite3.OperationalError) and "database is locked" in str(said):
        return LOCKED
    if getattr(said, "sqlstate", "") == READ_ONLY_STATE or "readonly database" in str(said):
        return READ_ONLY
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout | ConnectionError):
        return AWAY
    return AWAY if isinstance(error, DBAPIError) and error.connection_invalidated else None


def _public_words(error: HTTPException) -> str:
    if error.status_code in (404, 405):
        return (
            "There is nothing here." if error.status_code == 404 else "This address does not work that way."
        )
    return error.detail


def _fields(error: HTTPException) -> dict[str, str]:
    """Litestar's own validation: [{"message", "key"}, …]."""
    extra = error.extra if isinstance(error.extra, list) else []
    return {
        str(item["key"]): str(item["message"]) for item in extra if isinstance(item, dict) and "key" in item
    }


def _words(problem: Problem) -> str:
    if not problem.fields:
        return problem.detail
    return "; ".join(f"{name}: {what}" for name, what in problem.fields.items())


def _as_json(request: AnyRequest, problem: Problem) -> Response[Any]:
    """RFC 9457."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
    }
    if problem.fields:
        content["errors"] = [{"field": name, "detail": what} for name, what in problem.fields.items()]
    if problem.status >= 500:
        content["error_id"] = peer(request).request_id
    if problem.status == 401:
        problem.headers.setdefault("WWW-Authenticate", "Bearer")
    return Response(
        content, status_code=problem.status, media_type="application/problem+json", headers=problem.headers
    )


def _to_sign_in(request: AnyRequest) -> Response[Any]:
    """A page leads there; htmx is told to go there itself, or the form would land inside the page it came from."""
    hx = request.headers.get("hx-request")
    here = _back(request) if hx or request.method != "GET" else _path_and_query(str(request.url))
    url = "/sign-in" if here == "/" else f"/sign-in?next={quote(here, safe='/')}"
    return render.go(request, url, hx_status=401)


def _back(request: AnyRequest) -> str:
    """The page this came from, if it is one of ours."""
    came_from = request.headers.get("hx-current-url") or request.headers.get("referer") or ""
    parts = urlsplit(came_from) if came_from.isprintable() else urlsplit("")
    return _path_and_query(came_from) if parts.netloc.lower() == peer(request).host else "/"


def _path_and_query(url: str) -> str:
    parts = urlsplit(url)
    return render.local_path(parts.path + (f"?{parts.query}" if parts.query else ""))


def _log(request: AnyRequest, error: Exception, problem: Problem) -> None:
    log.error(
        "request failed",
        error_id=peer(request).request_id,
        status=problem.status,
        method=request.method,
        path=printable(request.url.path),
        exc_info=error if problem.status == 500 else None,
        cause=None if problem.status == 500 else printable(str(error))[:500],
    )
