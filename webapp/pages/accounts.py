"""People, their sessions and API tokens, and everybody's own account."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from litestar import get, post

from webapp import render
from webapp.auth import CurrentUser, actor, admin
from webapp.forms import Form, read_form
from webapp.pages.shared import Answer, AnyRequest, database
from webapp.pages.standing import tell
from webapp.queries import accounts as queries
from worker.accounts import actions, signing_in
from worker.accounts.actor import ROLES
from worker.db.base import utc_now
from worker.errors import Invalid, Throttled, WrongPassword

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
            database(request), name, role=role, password=form.text("password"), actor=actor(request)
        )
    except Invalid as error:
        return await _people_page(request, form, error.problems)
    return render.redirect(request, "/people", f"{name} can sign in now.")


async def _people_page(request: AnyRequest, form: Form, errors: dict[str, str]) -> Answer:
    async with database(request).read() as connection:
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
    async with database(request).transaction() as session:
        await actions.set_role(session, user_id, role, actor=actor(request))
    await tell(request, user_id)
    return render.redirect(request, "/people", f"The role is {role} now.")


@post("/people/{user_id:uuid}/disable", guards=[admin])
async def disable(request: AnyRequest, user_id: UUID) -> Answer:
    async with database(request).transaction() as session:
        await actions.disable_user(session, user_id, actor=actor(request))
    await tell(request, user_id)
    return render.redirect(
        request,
        "/people",
        "Switched off: sessions and tokens have ended.",
        undo_url=f"/people/{user_id}/enable",
    )


@post("/people/{user_id:uuid}/enable", guards=[admin])
async def enable(request: AnyRequest, user_id: UUID) -> Answer:
    async with database(request).transaction() as session:
        await actions.enable_user(session, user_id, actor=actor(request))
    await tell(request, user_id)
    return render.redirect(request, "/people", "Switched on. They sign in again.")


@post("/people/{user_id:uuid}/password", guards=[admin])
async def reset_password(request: AnyRequest, user_id: UUID) -> Answer:
    form = await read_form(request)
    form.check()
    await actions.reset_password(database(request), user_id, form.text("password"), actor=actor(request))
    await tell(request, user_id)
    return render.redirect(request, "/people", "The new password holds; they have to sign in again.")


@post("/people/sessions/{session_id:uuid}/end")
async def end_session(request: AnyRequest, session_id: UUID) -> Answer:
    async with database(request).transaction() as session:
        await signing_in.end_session(session, session_id, actor=actor(request))
    await tell(request, None)
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
        async with database(request).transaction() as session:
            made = await actions.add_token(
                session, name, role=role, actor=actor(request), expires_at=expires_at
            )
    except Invalid as error:
        return await _tokens_page(request, form, errors=error.problems)
    return await _tokens_page(request, Form([]), new_token=made.token)


async def _tokens_page(
    request: AnyRequest, form: Form, *, errors: dict[str, str] | None = None, new_token: str | None = None
) -> Answer:
    async with database(request).read() as connection:
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
    async with database(request).transaction() as session:
        await actions.revoke_token(session, token_id, actor=actor(request))
    await tell(request, None)
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
            database(request),
            form.text("current"),
            form.text("password"),
            actor=actor(request),
            keep_session=me.session_id,
        )
    except (Invalid, WrongPassword, Throttled) as error:
        problems = error.problems if isinstance(error, Invalid) else {"current": error.message}
        return await _account_page(request, problems, status=_STATUS[type(error)])
    await tell(request, me.id)
    return render.redirect(request, "/account", "Your password is changed; your other sessions have ended.")


async def _account_page(request: AnyRequest, errors: dict[str, str], status: int = 200) -> Answer:
    async with database(request).read() as connection:
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


_STATUS: dict[type[Exception], int] = {Invalid: 422, WrongPassword: 403, Throttled: 429}

routes = [
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
]
