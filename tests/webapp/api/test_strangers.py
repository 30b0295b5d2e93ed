"""Who brings no token learns nothing of the API, not even which addresses it has."""

from tests.webapp.api.conftest import Client

PATHS = ("jobs", "tokens", "webhooks", "schedules", "nothing/here", f"jobs/{'x' * 300}", "jobs/bulk/1")


async def test_every_address_answers_a_stranger_the_same(viewer: Client) -> None:
    for path in PATHS:
        for method in ("GET", "POST", "PATCH", "DELETE", "PUT"):
            answer = await viewer.http.request(method, f"/api/v1/{path}")
            assert (path, method, answer.status_code) == (path, method, 401)
            assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_caller_with_a_token_is_told_that_there_is_nothing(viewer: Client) -> None:
    assert (await viewer.call("GET", "/nothing/here"))[0] == 404
    assert (await viewer.call("PUT", "/jobs"))[0] == 405
