"""Set-up, sign-in and sign-out, people, their sessions, API tokens, and the choices everybody makes for themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from litestar import Request, Response, get, post

from webapp import render
from webapp.auth import SESSION, VISIT, Authenticator, CurrentUser, actor, admin, cookie, put_cookie
from webapp.forms import Form, read_form
from webapp.queries import accounts as queries
from webapp.security import peer
from worker.accounts import actions, signing_in
from worker.accounts.actor import ROLES, Actor
from worker.accounts.signing_in import Caller, SignedIn
from worker.accounts.tickets import SETUP, is_good
from worker.db.base import utc_now
from worker.db.session import Database
from worker.errors import BadCredentials, Invalid, SetupClosed, Throttled, WrongPassword
from worker.live.port import REVOKED

AnyRequest = Request[Any, Any, Any]
Answer = Response[Any]

# Coming in


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
        session = await signing_in.sign_in(_database(request), name, form.text("password"), _caller(request))
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
    async with _database(request).transaction() as session:
        await signing_in.sign_out(session, request.user.session_id, actor=actor(request))
    await _tell(request, request.user.id)
    response = render.redirect(request, "/sign-in")
    put_cookie(request, response, SESSION, "", max_age_s=0)
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


@get("/set-up", opt={"public": True})
async def set_up_form(request: AnyRequest) -> Answer:
    """Looking does not use the link up: mail scanners and previews look too."""
    link = request.query_params.get("link", "")
    async with _database(request).session() as session:
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
            _database(request), link, name, password, _caller(request)
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
        async with _database(request).transaction() as database_session:
            await signing_in.sign_out(database_session, old.session_id, actor=who)
    response = render.redirect(request, url, flash)
    put_cookie(request, response, SESSION, session.token)
    if cookie(request.scope, VISIT):
        put_cookie(request, response, VISIT, "", max_age_s=0)
    return response


# People


@get("/people", guards=[admin])
async def people(request: AnyRequest) -> Answer:
    return await _people_page(request, Form([]), {})


@post("/people", guards=[admin])
async def add_person(request: AnyRequest) -> Answer:
    form = await read_form(request)
    name, role = form.required("name"), form.choice("role", ROLES)
    try:
        form.check()
        await actions.add_user(
            _database(request), name, role=role, password=form.text("password"), actor=actor(request)
        )
    except Invalid as error:
        return await _people_page(request, form, error.problems)
    return render.redirect(request, "/people", f"{name} can sign in now.")


async def _people_page(request: AnyRequest, form: Form, errors: dict[str, str]) -> Answer:
    async with _database(request).read() as connection:
        found = await queries.people(connection, request.user, utc_now())
    return render.page(
        request,
        "accounts/people.html",
        title="People",
        nav="people",
        status=422 if errors else 200,
        people=found,
        form={"name": form.words("name"), "role": form.words("role", "viewer")},
        errors=errors,
    )


@post("/people/{user_id:uuid}/role", guards=[admin])
async def set_role(request: AnyRequest, user_id: UUID) -> Answer:
    form = await read_form(request)
    role = form.choice("role", ROLES)
    form.check()
    async with _database(request).transaction() as session:
        await actions.set_role(session, user_id, role, actor=actor(request))
    await _tell(request, user_id)
    return render.redirect(request, "/people", f"The role is {role} now.")


@post("/people/{user_id:uuid}/disable", guards=[admin])
async def disable(request: AnyRequest, user_id: UUID) -> Answer:
    async with _database(request).transaction() as session:
        await actions.disable_user(session, user_id, actor=actor(request))
    await _tell(request, user_id)
    return render.redirect(
        request,
        "/people",
        "Switched off: sessions and tokens have ended.",
        undo_url=f"/people/{user_id}/enable",
    )


@post("/people/{user_id:uuid}/enable", guards=[admin])
async def enable(request: AnyRequest, user_id: UUID) -> Answer:
    async with _database(request).transaction() as session:
        await actions.enable_user(session, user_id, actor=actor(request))
    await _tell(request, user_id)
    return render.redirect(request, "/people", "Switched on. They sign in again.")


@post("/people/{user_id:uuid}/password", guards=[admin])
async def reset_password(request: AnyRequest, user_id: UUID) -> Answer:
    form = await read_form(request)
    form.check()
    await actions.reset_password(_database(request), user_id, form.text("password"), actor=actor(request))
    await _tell(request, user_id)
    return render.redirect(request, "/people", "The new password holds; they have to sign in again.")


@post("/people/sessions/{session_id:uuid}/end")
async def end_session(request: AnyRequest, session_id: UUID) -> Answer:
    async with _database(request).transaction() as session:
        await signing_in.end_session(session, session_id, actor=actor(request))
    await _tell(request, None)
    if session_id == request.user.session_id:
        return render.redirect(request, "/sign-in")
    return render.redirect(
        request, "/people" if request.user.at_least("admin") else "/account", "The session has ended."
    )


# Tokens


@get("/tokens", guards=[admin])
async def tokens(request: AnyRequest) -> Answer:
    return await _tokens_page(request, Form([]))


@post("/tokens", guards=[admin])
async def add_token(request: AnyRequest) -> Answer:
    """The answer itself shows the token: it passes through no cookie, address or table."""
    form = await read_form(request)
    name, role = form.required("name"), form.choice("role", ROLES)
    days = form.choice("expires_days", ("", "30", "90", "365"))
    try:
        form.check()
        expires_at = utc_now() + timedelta(days=int(days)) if days else None
        async with _database(request).transaction() as session:
            made = await actions.add_token(
                session, name, role=role, actor=actor(request), expires_at=expires_at
            )
    except Invalid as error:
        return await _tokens_page(request, form, errors=error.problems)
    return await _tokens_page(request, Form([]), new_token=made.token)


async def _tokens_page(
    request: AnyRequest, form: Form, *, errors: dict[str, str] | None = None, new_token: str | None = None
) -> Answer:
    async with _database(request).read() as connection:
        found = await queries.tokens(connection)
    return render.page(
        request,
        "accounts/tokens.html",
        title="API tokens",
        nav="tokens",
        status=422 if errors else 200,
        tokens=found,
        new_token=new_token,
        form={
            "name": form.words("name"),
            "role": form.words("role", "operator"),
            "expires_days": form.words("expires_days"),
        },
        errors=errors or {},
    )


@post("/tokens/{token_id:uuid}/revoke", guards=[admin])
async def revoke_token(request: AnyRequest, token_id: UUID) -> Answer:
    async with _database(request).transaction() as session:
        await actions.revoke_token(session, token_id, actor=actor(request))
    await _tell(request, None)
    return render.redirect(request, "/tokens", "Revoked: it answers 401 from now on.")


# One's own account


@get("/account")
async def account(request: AnyRequest) -> Answer:
    return await _account_page(request, {})


@post("/account/password")
async def set_password(request: AnyRequest) -> Answer:
    form = await read_form(request)
    me: CurrentUser = request.user
    try:
        form.check()
        await actions.set_password(
            _database(request),
            form.text("current"),
            form.text("password"),
            actor=actor(request),
            keep_session=me.session_id,
        )
    except (Invalid, WrongPassword, Throttled) as error:
        problems = error.problems if isinstance(error, Invalid) else {"current": error.message}
        return await _account_page(request, problems, status=_STATUS[type(error)])
    await _tell(request, me.id)
    return render.redirect(request, "/account", "Your password is changed; your other sessions have ended.")


async def _account_page(request: AnyRequest, errors: dict[str, str], status: int = 200) -> Answer:
    async with _database(request).read() as connection:
        found = await queries.sessions_of(connection, request.user, utc_now())
    return render.page(
        request,
        "accounts/account.html",
        title="Your account",
        nav="account",
        status=status,
        sessions=found,
        errors=errors,
    )


@post("/theme", opt={"public": True})
async def set_theme(request: AnyRequest) -> Answer:
    """Kept with the person, and in a cookie for the pages before sign-in."""
    form = await read_form(request)
    theme = form.choice("theme", render.THEMES)
    form.check()
    if request.scope["user"] is not None:
        async with _database(request).transaction() as session:
            await actions.set_preferences(session, request.user.id, {"theme": theme})
        await _tell(request, request.user.id)
    response = render.redirect(request, render.local_path(form.text("next", "/")))
    put_cookie(request, response, render.THEME, theme, max_age_s=31_536_000)
    return response


def _database(request: AnyRequest) -> Database:
    database: Database = request.app.state.engine.database
    return database


def _caller(request: AnyRequest) -> Caller:
    found = peer(request)
    return Caller(found.ip, request.headers.get("user-agent", ""), found.request_id)


async def _tell(request: AnyRequest, user_id: UUID | None) -> None:
    """Every process forgets what it remembers of this person, this one before the next page is read."""
    message = {"user_id": str(user_id)} if user_id else {}
    authenticator: Authenticator = request.app.state.authenticator
    authenticator.hear(REVOKED, message)
    await request.app.state.engine.socket.broadcast(REVOKED, message)


_STATUS: dict[type[Exception], int] = {Invalid: 422, WrongPassword: 403, Throttled: 429}

routes = [
    sign_in_form,
    sign_in,
    sign_out,
    set_up_form,
    set_up,
    people,
    add_person,
    set_role,
    disable,
    enable,
    reset_password,
    end_session,
    tokens,
    add_token,
    revoke_token,
    account,
    set_password,
    set_theme,
]
