"""Turns templates into answers: a page, a fragment of one, or the way to another page. Only here are HTMX's headers written."""

from __future__ import annotations

import base64
import binascii
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Request, Response

from webapp.auth import VISIT, CurrentUser, cookie, csrf_token, put_cookie
from webapp.filters import action_words, browser_words
from webapp.paths import folder
from webapp.security import peer
from webapp.static import StaticFiles
from worker.accounts.crypto import sign, signed_by_us
from worker.settings import Settings

AnyRequest = Request[Any, Any, Any]

FLASH: Final = "flash"
THEME: Final = "theme"
THEMES: Final = ("light", "dark", "auto")
KINDS: Final = {"ok": "success", "error": "failed"}


@dataclass(frozen=True, slots=True)
class Flash:
    """What an action says about itself on the next page."""

    kind: str
    text: str
    undo_url: str | None = None


@dataclass(frozen=True, slots=True)
class DeskEnvironment:
    """The badge that tells the production desk from the others."""

    name: str
    colour: str


def make_environment(static: StaticFiles) -> Environment:
    """The one Jinja environment of a process: everything escaped, nothing missing passed over in silence."""
    jinja = Environment(
        loader=FileSystemLoader(folder("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        cache_size=400,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.globals["static"] = static.url
    jinja.filters["action_words"] = action_words
    jinja.filters["browser_words"] = browser_words
    jinja.globals["ui"] = jinja.get_template("ui/_macros.html").module
    return jinja


def page(
    request: AnyRequest, template: str, *, title: str, nav: str = "", status: int = 200, **context: Any
) -> Response[str]:
    """A whole page. `nav` names the section it belongs to; `context` is what the template says it needs."""
    flashes = _take_flash(request)
    html = _render(request, template, title=title, **_shell(request, title, nav, flashes), **context)
    response = Response(html, status_code=status, media_type="text/html")
    if visit := request.scope["state"].get("new_visit"):
        put_cookie(request, response, VISIT, visit)
    if flashes:
        put_cookie(request, response, FLASH, "", max_age_s=0)
    return response


def fragment(
    request: AnyRequest,
    template: str,
    *,
    flash: str | None = None,
    kind: str = "ok",
    undo_url: str | None = None,
    status: int = 200,
    push_url: str | None = None,
    retarget: str | None = None,
    reswap: str | None = None,
    **context: Any,
) -> Response[str]:
    """A piece of a page for HTMX to swap in; `flash` is shown in the page's flash region beside it."""
    html = _render(request, template, **_rights(request), **context)
    if flash is not None:
        said = _render(
            request, "shell/_flashes.html", **_rights(request), flashes=[_flash(flash, kind, undo_url)]
        )
        html += f'<hx-partial hx-target="#flash" hx-swap="innerHTML">{said}</hx-partial>'
    wanted = {"HX-Push-Url": push_url, "HX-Retarget": retarget, "HX-Reswap": reswap}
    headers = {name: value for name, value in wanted.items() if value is not None}
    return Response(html, status_code=status, media_type="text/html", headers=headers)


def redirect(
    request: AnyRequest, url: str, flash: str | None = None, kind: str = "ok", undo_url: str | None = None
) -> Response[Any]:
    """After an action: to a page of ours, which then shows `flash`."""
    response = go(request, url)
    if flash is not None:
        said = msgspec.json.encode(asdict(_flash(flash, kind, undo_url)))
        text = base64.urlsafe_b64encode(said).decode().rstrip("=")
        value = f"{text}.{sign(_settings(request).secret_key, FLASH, text)}"
        put_cookie(request, response, FLASH, value, max_age_s=60)
    return response


def go(request: AnyRequest, url: str, *, hx_status: int = 200) -> Response[Any]:
    """Sends the browser to a page: by 303, or by telling htmx, which would put the page inside the one it is on."""
    if request.headers.get("hx-request"):
        return Response(None, status_code=hx_status, headers={"HX-Redirect": url}, media_type="text/html")
    return Response(None, status_code=303, headers={"Location": url}, media_type="text/html")


def error_page(
    request: AnyRequest, status: int, title: str, text: str, headers: dict[str, str], *, back_href: str
) -> Response[str]:
    response = page(
        request,
        "errors/error.html",
        title=title,
        status=status,
        status_code=status,
        text=text,
        request_id=peer(request).request_id if status >= 500 else None,
        back_href=back_href,
    )
    response.headers.update(headers)
    return response


def error_fragment(request: AnyRequest, status: int, text: str, headers: dict[str, str]) -> Response[str]:
    """Lands in the flash region, whatever the request meant to swap."""
    request_id = peer(request).request_id if status >= 500 else None
    response = fragment(
        request,
        "errors/_error.html",
        status=status,
        retarget="#flash",
        reswap="innerHTML",
        kind="failed",
        text=text,
        request_id=request_id,
    )
    response.headers.update(headers)
    return response


def local_path(url: str) -> str:
    """`url` if it is a path of this desk, else "/": `//evil`, `/\\evil` and `javascript:` are none."""
    if not url.startswith("/") or url.startswith(("//", "/\\")) or not url.isprintable() or "\\" in url:
        return "/"
    parts = urlsplit(url)
    return "/" if parts.scheme or parts.netloc else url


def _render(request: AnyRequest, template: str, **context: Any) -> str:
    jinja: Environment = request.app.state.jinja
    return jinja.get_template(template).render(context)


def _shell(request: AnyRequest, title: str, nav: str, flashes: list[Flash]) -> dict[str, Any]:
    """What base.html and bare.html need beside the page's own context."""
    settings = _settings(request)
    query = request.scope["query_string"].decode("latin-1")
    return {
        **_rights(request),
        "page_title": title,
        "nav": nav,
        "counters": request.app.state.counters.latest,
        "environment": DeskEnvironment(settings.environment, settings.environment_colour)
        if settings.environment
        else None,
        "theme": _theme(request),
        "flashes": flashes,
        "request_path": local_path(request.url.path + (f"?{query}" if query else "")),
    }


def _rights(request: AnyRequest) -> dict[str, Any]:
    user: CurrentUser | None = request.scope["user"]
    return {
        "user": user,
        "csrf_token": csrf_token(request),
        "can_act": may_act(request),
        "can_admin": user is not None and user.at_least("admin"),
        "read_only": _settings(request).read_only,
    }


def may_act(request: AnyRequest) -> bool:
    """Whether pages offer actions to this caller."""
    user: CurrentUser | None = request.scope["user"]
    return user is not None and user.at_least("operator") and not _settings(request).read_only


def _theme(request: AnyRequest) -> str:
    user: CurrentUser | None = request.scope["user"]
    chosen = user.preferences.get("theme") if user else cookie(request.scope, THEME)
    return chosen if chosen in THEMES else "auto"


def _flash(text: str, kind: str, undo_url: str | None) -> Flash:
    return Flash(KINDS.get(kind, kind), text, undo_url)


def _settings(request: AnyRequest) -> Settings:
    settings: Settings = request.app.state.engine.settings
    return settings


def _take_flash(request: AnyRequest) -> list[Flash]:
    text, _, signature = (cookie(request.scope, FLASH) or "").partition(".")
    if not text or not signed_by_us(_settings(request).secret_key, FLASH, text, signature):
        return []
    try:
        return [msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=Flash)]
    except (msgspec.DecodeError, binascii.Error):
        return []
