"""Messages of the application's own, to everybody or to one person, over all web processes."""

from __future__ import annotations

from tests.webapp.live.test_stream import client, publish, subscribed


async def test_one_person_gets_it_on_every_page_of_every_process(two):
    here, there = two
    ada, bob = await here.sign_in(), await here.sign_in()
    async with here.page(ada) as first, there.page(ada) as second, there.page(bob) as other:
        for page in (first, second, other):
            await page.told(mode="live")
        await here.live.manager.send_to_user(str(await here.user_id(ada)), {"text": "for ada"})
        await first.told(topic="user", message={"text": "for ada"})
        await second.told(topic="user", message={"text": "for ada"})
        await here.live.manager.broadcast("notice", {"text": "for all"})
        await other.told(topic="notice", message={"text": "for all"})
        assert "for ada" not in str(other.messages)


async def test_an_api_client_gets_the_broadcasts_it_subscribed_to(two):
    here, there = two
    async with client(there) as wants, client(there) as other:
        await subscribed(there, wants, "notice.*")
        await here.live.manager.broadcast("notice.deploy", {"version": 2})
        await wants.told(topic="notice.deploy", message={"version": 2})
        await subscribed(there, other, "job.>")
        await publish(here, "job.queued")
        await other.told(topic="job.queued")
        assert len(other.messages) == 1


async def test_a_broadcast_cannot_pass_for_a_fact(one):
    async with client(one) as page:
        await subscribed(one, page, "job.>")
        await one.live.manager.broadcast("job.succeeded", {"event": {"job_id": "1"}})
        said = await page.told(topic="job.succeeded")
        assert "event" not in said


async def test_it_forgets_who_left(one):
    async with one.page() as page:
        await page.told(mode="live")
        assert len(one.live.manager.connections) == 1
    await page.until(lambda: not one.live.manager.connections)
    await one.live.manager.broadcast("notice", {})
