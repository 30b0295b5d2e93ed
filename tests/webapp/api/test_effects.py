"""Effects in doubt over the API."""

from __future__ import annotations

from uuid import UUID

from tests.webapp.api.conftest import NOWHERE, Client
from worker.db.base import utc_now
from worker.joblogs.models import Effect


async def test_a_doubt_is_listed_and_settled(operator: Client, viewer: Client) -> None:
    job_id = (await operator.run())["job_id"]
    path = f"/jobs/{job_id}/effects"
    assert await operator.call("GET", path) == (200, {"items": []})
    async with operator.engine.database.transaction() as session:
        for key, state, value in (("mail", "done", {"id": 7}), ("charge", "started", None)):
            session.add(Effect(job_id=UUID(job_id), key=key, state=state, value=value, epoch=1, at=utc_now()))
    _, page = await viewer.call("GET", path)
    assert [(item["key"], item["state"], item["value"]) for item in page["items"]] == [
        ("charge", "started", None),
        ("mail", "done", {"id": 7}),
    ]
    assert (await viewer.call("POST", path, {"key": "charge", "happened": True}))[0] == 403
    status, answer = await operator.call("POST", path, {"key": "", "happened": "yes", "why": 1})
    assert (status, operator.problems(answer).keys()) == (422, {"key", "happened", "why"})
    assert (await operator.call("POST", path, {"key": "mail", "happened": True}))[0] == 404
    await operator.set(job_id, status="running", epoch=1)
    assert (await operator.call("POST", path, {"key": "charge", "happened": True}))[0] == 409
    await operator.set(job_id, status="failed")
    status, page = await operator.call("POST", path, {"key": "charge", "happened": True})
    assert (status, {item["key"]: item["state"] for item in page["items"]}) == (
        200,
        {"charge": "done", "mail": "done"},
    )
    for method, body in (("GET", None), ("POST", {"key": "x", "happened": True})):
        assert (await operator.call(method, f"/jobs/{NOWHERE}/effects", body))[0] == 404
