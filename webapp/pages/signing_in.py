"""Set-up, sign-in and sign-out: how a session begins and ends, and the theme of the pages before it."""

from __future__ import annotations

from litestar import get, post

from webapp import render
from webapp.auth import SESSION, VISIT, actor, cookie, put_cookie
from webapp.forms import Form, read_form
from webapp.pages.shared import Answer, AnyRequest, database
from webapp.pages.standing import tell
from webapp.security import peer
from worker.accounts import actions, signing_in
from worker.accounts.actor import Actor
from worker.accounts.signing_in import Caller, SignedIn
from worker.accounts.tickets import SETUP, is_good
from worker.errors import BadCredentials, Invalid, SetupClosed, Throttled


@get("/sign-in", opt={"public": True})
async def sign_in_form(request: AnyRequest) -> Answer:
    if request.scope["user"] is not None:
        return render.redirect(request, "/")
    return _sign_in_page(request, next_path=request.query_params.get("next", "/"))


@post("/sign-in", opt={"public": True})
async def sign_in(request: AnyRequest) -> Answer:
    form = await read_form(request)
    name, next_path = form.words("name"), form.text("next", "/")
    try:
        form.check()
        session = await signing_in.sign_in(database(request), name, form.text("password"), _caller(request))
    except (BadCredentials, Throttled) as error:
        return _sign_in_page(request, name=name, next_path=next_path, error=error)
    return await _let_in(request, session, render.local_path(next_path))


def _sign_in_page(
    request: AnyRequest, *, name: str = "", next_path: str, error: BadCredentials | Throttled | None = None
) -> Answer:
    response = render.page(
        request,
        "accounts/sign_in.html",
        title="Sign in",
        status=429 if isinstance(error, Throttled) else 401 if error else 200,
        name=name,
        next=render.local_path(next_path),
        error=error.message if error else None,
    )
    if isinstance(error, Throttled):
        response.headers["Retry-After"] = str(error.facts["retry_after_s"])
    return response


@post("/sign-out")
async def sign_out(request: AnyRequest) -> Answer:
    async with database(request).transaction() as session:
        await signing_in.sign_out(session, request.user.session_id, actor=actor(request))
    await tell(request, request.user.id)
    response = render.redirect(request, "/sign-in")
    put_cookie(request, response, SESSION, "", max_age_s=0)
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


@get("/set-up", opt={"public": True})
async def set_up_form(request: AnyRequest) -> Answer:
    """Looking does not use the link up: mail scanners and previews look too."""
    link = request.query_params.get("link", "")
    async with database(request).session() as session:
        if not await is_good(session, SETUP, link):
            raise SetupClosed
    return _set_up_page(request, link, Form([]))


@post("/set-up", opt={"public": True})
async def set_up(request: AnyRequest) -> Answer:
    form = await read_form(request)
    link, name, password = form.text("token"), form.required("name"), form.text("password")
    try:
        form.check()
        session = await signing_in.create_first_admin(
            database(request), link, name, password, _caller(request)
        )
    except (Invalid, Throttled) as error:
        return _set_up_page(request, link, form, error)
    return await _let_in(request, session, "/", "The desk is yours.")


def _set_up_page(
    request: AnyRequest, link: str, form: Form, error: Invalid | Throttled | None = None
) -> Answer:
    return render.page(
        request,
        "accounts/set_up.html",
        title="Set up",
        status=422 if isinstance(error, Invalid) else 429 if error else 200,
        token=link,
        name=form.words("name"),
        errors=error.problems if isinstance(error, Invalid) else {},
        error=error.message if isinstance(error, Throttled) else None,
    )


async def _let_in(request: AnyRequest, session: SignedIn, url: str, flash: str | None = None) -> Answer:
    """A new session under a new cookie; what this browser had before is worth nothing from here on."""
    if old := request.scope["user"]:
        who = Actor(old.name, old.role, ip=peer(request).ip, user_id=old.id)
        async with database(request).transaction() as database_session:
            await signing_in.sign_out(database_session, old.session_id, actor=who)
    response = render.redirect(request, url, flash)
    put_cookie(request, response, SESSION, session.token)
    if cookie(request.scope, VISIT):
        put_cookie(request, response, VISIT, "", max_age_s=0)
    return response


@post("/theme", opt={"public": True})
async def set_theme(request: AnyRequest) -> Answer:
    """Kept with the person, and in a cookie for the pages before sign-in."""
    form = await read_form(request)
    theme = form.choice("theme", render.THEMES)
    form.check()
    if request.scope["user"] is not None:
        async with database(request).transaction() as session:
            await actions.set_preferences(session, request.user.id, {"theme": theme})
        await tell(request, request.user.id)
    response = render.redirect(request, render.local_path(form.text("next", "/")))
    put_cookie(request, response, render.THEME, theme, max_age_s=31_536_000)
    return response


def _caller(request: AnyRequest) -> Caller:
    found = peer(request)
    return Caller(found.ip, request.headers.get("user-agent", ""), found.request_id)


routes = [sign_in_form, sign_in, sign_out, set_up_form, set_up, set_theme]
