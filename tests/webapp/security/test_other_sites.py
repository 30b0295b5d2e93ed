"""What a page of another site can make a browser send here (cases 19 to 25, 51, 52)."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.webapp.site import ADDRESS, PASSWORD, Site, form_token

HTTPS = "https://desk.example.com"
EVIL = [
    {"Origin": "https://evil.com"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:8000.evil.com"},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "https://127.0.0.1:8000"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


@pytest.mark.parametrize("headers", EVIL, ids=lambda headers: " ".join(*headers.items()))
@pytest.mark.parametrize("with_token", [False, True], ids=["without a token", "with a token"])
async def test_a_form_from_another_site_does_nothing(
    site: Site, headers: dict[str, str], with_token: bool
) -> None:
    # cases 19, 20 and 24: the origin alone is reason enough
    browser = await site.signed_in()
    token = await browser.form_token() if with_token else ""
    answer = await browser.post("/people", _eve(), token=token, headers=headers)
    assert answer.status_code == 403
    assert await site.audited(action="user.add", actor="Ada") == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": ADDRESS},
        {"Sec-Fetch-Site": "same-origin"},
        {"Origin": ADDRESS, "Sec-Fetch-Site": "same-origin"},
    ],
)
async def test_our_own_form_works_from_old_and_new_browsers(site: Site, headers: dict[str, str]) -> None:
    browser = await site.signed_in()
    assert (await browser.post("/people", _eve(), headers=headers)).status_code == 303


@pytest.mark.parametrize("token", ["", "x", "x.y", ".", "ą.ą", "a" * 5000])
async def test_our_own_origin_without_a_good_token_does_nothing(site: Site, token: str) -> None:  # case 19
    browser = await site.signed_in()
    answer = await browser.post("/people", _eve(), token=token, headers={"Origin": ADDRESS})
    assert answer.status_code == 403
    assert "reload the page" in answer.text


async def test_the_token_of_another_session_or_of_before_sign_out_is_refused(site: Site) -> None:  # case 21
    ada, olga = await site.signed_in(), await site.signed_in("olga", "admin")
    hers = await olga.form_token()
    assert (await ada.post("/people", _eve(), token=hers)).status_code == 403
    old = await ada.form_token()
    await ada.post("/sign-out")
    await ada.sign_in("Ada")
    assert (await ada.post("/people", _eve(), token=old)).status_code == 403
    assert (await ada.post("/people", _eve())).status_code == 303


async def test_a_token_also_comes_in_a_header_as_htmx_sends_it(site: Site) -> None:
    browser = await site.signed_in()
    token = await browser.form_token()
    answer = await browser.http.post("/people", data=_eve(), headers={"X-CSRF-Token": token})
    assert answer.status_code == 303


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/json", "text/xml", "", "application/x-www-form-urlencodedx"]
)
async def test_only_forms_are_forms(site: Site, kind: str) -> None:  # case 23
    browser = await site.signed_in()
    token = await browser.form_token()
    body = f"_csrf={token}&name=eve&role=admin&password={PASSWORD}".encode()
    answer = await browser.http.post(
        "/people",
        content=body,
        headers={"Content-Type": kind, "X-CSRF-Token": token} if kind else {"X-CSRF-Token": token},
    )
    assert answer.status_code == 415
    assert await site.audited(action="user.add", actor="Ada") == []


@pytest.mark.parametrize("path", ["/people", "/api/v1/jobs", "/sign-in", "/api/v1/stream/ticket"])
async def test_no_other_origin_is_let_in_by_cors(site: Site, path: str) -> None:  # case 24
    browser = await site.signed_in()
    asked = {"Origin": "https://evil.com", "Access-Control-Request-Method": "POST"}
    for answer in (
        await browser.http.options(path, headers=asked),
        await browser.http.get(path, headers={"Origin": "https://evil.com"}),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_the_api_needs_no_form_token_and_never_looks_at_cookies(site: Site) -> None:  # case 25
    admin, viewer = await site.signed_in(), await site.token("viewer")
    path = "/api/v1/stream/ticket"
    assert (await admin.http.post(path)).status_code == 401
    bearer = {"Authorization": f"Bearer {viewer}"}
    assert (await site.browser().http.post(path, headers=bearer)).status_code == 201
    both = await admin.http.get("/api/v1/tokens", headers=bearer)
    assert both.status_code == 403, "the cookie is an admin's, the bearer a viewer's"


async def test_pages_never_look_at_bearer_tokens(site: Site) -> None:
    bearer = {"Authorization": f"Bearer {await site.token('admin')}"}
    assert (await site.browser().get("/people", headers=bearer)).status_code == 303


async def test_the_public_address_is_the_only_origin(https_site: Site) -> None:
    await https_site.person("Ada", "admin")
    browser = https_site.browser()
    token = await browser.form_token()
    for origin, status in (
        ("http://desk.example.com", 403),
        ("https://desk.example.com.evil.com", 403),
        (HTTPS, 303),
    ):
        answer = await browser.http.post(
            "/sign-in", data={"_csrf": token, "name": "Ada", "password": PASSWORD}, headers={"Origin": origin}
        )
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/live", {"Origin": "https://evil.com"}, "refused"),
        ("/live", {"Origin": "https://desk.example.com.evil.com"}, "refused"),
        ("/live", {"Origin": "null"}, "refused"),
        ("/live", {}, "refused"),
        ("/live", {"Origin": HTTPS}, "let in"),
        ("/api/v1/stream", {"Origin": "https://evil.com", "Authorization": "TOKEN"}, "refused"),
        ("/api/v1/stream", {"Authorization": "TOKEN"}, "let in"),
        ("/api/v1/stream", {}, "refused"),
    ],
)
async def test_a_socket_is_opened_by_our_own_page_or_by_a_program(  # cases 51 and 52
    https_site: Site, path: str, headers: dict[str, str], status: str
) -> None:
    browser = await https_site.signed_in()
    token = await https_site.token("viewer")
    sent = [
        (name.lower().encode(), value.replace("TOKEN", f"Bearer {token}").encode())
        for name, value in headers.items()
    ]
    sent += [
        (b"host", b"desk.example.com"),
        (b"cookie", f"__Host-session={browser.http.cookies['__Host-session']}".encode()),
    ]
    assert await _opens(https_site, path, sent) == status


async def _opens(site: Site, path: str, headers: list[tuple[bytes, bytes]]) -> str:
    """Speaks ASGI, as a server would: closing before accepting is an HTTP 403."""
    said: list[dict[str, Any]] = []
    asked = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}])

    async def receive() -> Any:
        return next(asked)

    async def send(message: Any) -> None:
        said.append(message)

    scope = {
        "type": "websocket", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "ws", "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "subprotocols": [], "state": {}, "extensions": {},
    }  # fmt: skip
    await site.app(scope, receive, send)  # type: ignore[arg-type] # a scope by hand
    return "let in" if said and said[0]["type"] == "websocket.accept" else "refused"


def _eve() -> dict[str, str]:
    return {"name": "eve", "role": "admin", "password": PASSWORD}


def test_the_form_token_of_each_answer_differs_so_that_compression_betrays_nothing() -> None:
    from worker.accounts.crypto import sign

    assert sign("k" * 40, "csrf", "a session 1") != sign("k" * 40, "csrf", "b session 1")


async def test_each_page_has_another_form_token(site: Site) -> None:
    browser = await site.signed_in()
    first, second = form_token(await browser.get("/account")), form_token(await browser.get("/account"))
    assert first != second
    assert isinstance(browser.http, httpx.AsyncClient)
