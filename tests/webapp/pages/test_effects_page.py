"""An effect in doubt on the job's page: the question, and the two answers."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa

from tests.webapp.pages.conftest import Crew, flash_of
from tests.webapp.rows import Rows
from tests.webapp.site import Browser, Site
from worker.db.base import utc_now
from worker.joblogs.models import Effect

KEY = 'charge "42" <b>'


async def doubtful(site: Site, rows: Rows) -> UUID:
    (job_id,) = await rows.add(rows.job(status="failed", error="EffectInDoubt: charge"))
    async with site.database.transaction() as session:
        session.add(Effect(job_id=job_id, key=KEY, state="started", epoch=1, at=utc_now()))
    return job_id


async def keys(site: Site) -> list[tuple[str, str]]:
    async with site.database.read() as connection:
        return [(row[0], row[1]) for row in await connection.execute(sa.select(Effect.key, Effect.state))]


async def test_a_doubt_is_asked_and_answered(site: Site, crew: Crew, ada: Browser, rows: Rows) -> None:
    job_id = await doubtful(site, rows)
    page = (await ada.get(f"/job-logs/{job_id}")).text
    assert "Did “charge &#34;42&#34; &lt;b&gt;” happen?" in page
    answer = await ada.post(f"/job-logs/{job_id}/effects/happened", {"key": KEY}, follow_redirects=True)
    assert flash_of(answer) == "success: It counts as done: the next attempt passes over it."
    assert "happen?" not in answer.text
    assert await keys(site) == [(KEY, "done")]
    again = await ada.post(f"/job-logs/{job_id}/effects/did-not-happen", {"key": KEY}, follow_redirects=True)
    assert flash_of(again).startswith("failed: Nothing of that name is in doubt")
    assert await keys(site) == [(KEY, "done")]


async def test_what_did_not_happen_is_forgotten(site: Site, crew: Crew, ada: Browser, rows: Rows) -> None:
    job_id = await doubtful(site, rows)
    await ada.post(f"/job-logs/{job_id}/effects/did-not-happen", {"key": KEY})
    assert await keys(site) == []
    (entry,) = await site.audited(action="job.settle")
    assert entry.after == {"effect": KEY, "happened": False}


async def test_a_viewer_sees_the_question_alone(site: Site, crew: Crew, vera: Browser, rows: Rows) -> None:
    page = (await vera.get(f"/job-logs/{await doubtful(site, rows)}")).text
    assert "happen?" in page
    assert "It did not" not in page
