"""Every route against every role, from the router itself: a route without an entry in routes.py fails (cases 1, 22, 45, 46)."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute, WebSocketRoute

from tests.webapp.security.routes import ADMIN, OPERATOR, PUBLIC, ROUTES, SOCKETS, VIEWER
from tests.webapp.site import PASSWORD, Browser, Site

RANK = {PUBLIC: 0, VIEWER: 1, OPERATOR: 2, ADMIN: 3}
ROLES = ("anonymous", VIEWER, OPERATOR, ADMIN)
READS = ("GET", "HEAD", "OPTIONS")


def routes_of(app: Litestar) -> Iterator[tuple[str, str]]:
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for method in route.route_handler_map:
                if method != "OPTIONS":
                    yield method, route.path_format


def sockets_of(app: Litestar) -> set[str]:
    return {route.path_format for route in app.routes if isinstance(route, WebSocketRoute)}


async def test_every_route_says_who_may_use_it(site: Site) -> None:
    found = {f"{method} {path}" for method, path in routes_of(site.app)}
    assert found - set(ROUTES) == set(), "routes without an entry in routes.py"
    assert set(ROUTES) - found == set(), "entries without a route"
    assert sockets_of(site.app) == set(SOCKETS)


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_gets_exactly_its_routes(site: Site, role: str) -> None:
    token = await site.token(role) if role in RANK else "mdesk_abcdefghij_" + "x" * 43
    wrong = []
    for route, needed in ROUTES.items():
        answer = await _ask(site, role, token, route)
        if not _fits(route, RANK.get(role, 0) >= RANK[needed], role, answer):
            wrong.append(
                f"{role} {route} (needs {needed}): {answer.status_code} {answer.headers.get('location', '')}"
            )
    assert wrong == []


@pytest.mark.parametrize("role", [VIEWER, OPERATOR])
async def test_what_is_refused_changes_nothing_and_is_audited_as_denied(
    site: Site, role: str
) -> None:  # case 46
    browser, before = await site.signed_in("vera", role), len(await site.audited())
    refused = [route for route, needed in ROUTES.items() if not _is_api(route) and RANK[needed] > RANK[role]]
    token = await browser.form_token()
    for route in refused:
        method, path = _filled(route)
        await browser.http.request(method, path, data={"_csrf": token} if method != "GET" else None)
    entries = (await site.audited())[before:]
    assert [entry.denied for entry in entries] == [True] * len(refused)
    assert {entry.actor for entry in entries} == {"vera"}


async def test_no_address_that_changes_something_answers_to_get(site: Site) -> None:  # case 22
    browser = await site.signed_in()
    addresses = {path for method, path in routes_of(site.app) if method not in READS}
    for path in addresses - {path for method, path in routes_of(site.app) if method == "GET"}:
        if not path.startswith("/api/"):
            answer = await browser.get(_filled(f"GET {path}")[1])
            assert answer.status_code == 405, path
            assert answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/people", "/tokens"])
async def test_a_method_in_disguise_is_ignored(site: Site, path: str) -> None:  # case 22
    browser = await site.signed_in()
    answer = await browser.get(
        f"{path}?_method=POST&name=eve&role=admin", headers={"X-HTTP-Method-Override": "POST"}
    )
    assert answer.status_code == 200
    assert await site.audited(object_type="user", actor="Ada") == []


def _fits(route: str, allowed: bool, role: str, answer: httpx.Response) -> bool:
    if allowed:
        to_sign_in = answer.headers.get("location", "").startswith("/sign-in?") or answer.status_code == 401
        is_sign_in = route.endswith("/sign-in")
        return (
            answer.status_code not in (403, 405)
            and answer.status_code < 500
            and (is_sign_in or not to_sign_in)
        )
    if role != "anonymous":
        return answer.status_code == 403
    if _is_api(route):
        return answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    return answer.status_code == 303 and answer.headers["location"].startswith("/sign-in")


async def _ask(site: Site, role: str, token: str, route: str) -> httpx.Response:
    method, path = _filled(route)
    if _is_api(route):
        body = {"json": {}} if method in ("POST", "PATCH") else {}
        return await site.browser().http.request(
            method, path, headers={"Authorization": f"Bearer {token}"}, **body
        )
    browser: Browser = site.browser() if role == "anonymous" else await site.signed_in(f"{role}-person", role)
    data = (
        {"_csrf": await browser.form_token(), "theme": "auto", "current": PASSWORD}
        if method != "GET"
        else None
    )
    return await browser.http.request(method, path, data=data)


def _is_api(route: str) -> bool:
    return route.partition(" ")[2].startswith(("/api/", "/metrics", "/schema"))


def _filled(route: str) -> tuple[str, str]:
    method, _, path = route.partition(" ")
    while "{" in path:
        name = path[path.index("{") + 1 : path.index("}")]
        path = path.replace("{" + name + "}", str(uuid4()) if name.endswith("_id") else "x")
    return method, path
