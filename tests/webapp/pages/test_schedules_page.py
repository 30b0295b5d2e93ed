"""Schedules on the desk: made from a form with a preview, switched, paused, run, copied, deleted and brought back."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from tests.webapp.pages.conftest import Crew, flash_of
from tests.webapp.site import Browser, Site
from worker.db.base import utc_now
from worker.joblogs.models import JobLog
from worker.schedules import clock
from worker.schedules.models import ScheduledJob, ScheduleFire

FORM = {
    "function": "send_email", "name": "morning mail", "cron_expression": "30 2 * * *", "time_zone": "Europe/Warsaw",
    "missed": "all", "catch_up_s": "3600", "overlap": "allow", "jitter_s": "5", "queue": "", "priority": "",
    "arg.to": "ada@example.com", "arg.subject": "hi", "enabled": "true",
}  # fmt: skip


async def made(ada: Browser, **fields: str) -> str:
    """The path of a schedule that was made with the form."""
    answer = await ada.post("/schedules/new", FORM | fields)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


async def stored(site: Site) -> list[ScheduledJob]:
    async with site.database.session() as session:
        return list(await session.scalars(sa.select(ScheduledJob).order_by(ScheduledJob.name)))


async def put(site: Site, **values: Any) -> None:
    async with site.database.transaction() as session:
        await session.execute(sa.update(ScheduledJob).values(**values))


async def test_the_form_of_a_job_makes_a_schedule(site: Site, crew: Crew, ada: Browser) -> None:
    assert "send_email" in (await ada.get("/schedules/new")).text
    form = (await ada.get("/schedules/new?function=send_email")).text
    for control in ('name="cron_expression"', 'name="arg.to"', ">Europe/Warsaw</option>", 'name="overlap"'):
        assert control in form
    path = await made(ada)
    [schedule] = await stored(site)
    assert (schedule.name, schedule.function, schedule.args) == (
        "morning mail",
        "send_email",
        {"to": "ada@example.com", "subject": "hi"},
    )
    assert (schedule.missed, schedule.overlap, schedule.catch_up_s, schedule.jitter_s) == (
        "all",
        "allow",
        3600,
        5,
    )
    page = await ada.get(path)
    assert "At 02:30 every day, Europe/Warsaw time" in page.text
    assert "Nothing has been due yet." in page.text
    assert "morning mail" in (await ada.get("/schedules")).text


async def test_a_refused_form_names_each_mistake_and_keeps_what_was_typed(crew: Crew, ada: Browser) -> None:
    answer = await ada.post(
        "/schedules/new",
        FORM | {"cron_expression": "61 * * * *", "catch_up_s": "soon", "name": "", "arg.to": "x y"},
    )
    assert answer.status_code == 422
    answer_text = answer.text
    assert 'value="61 * * * *"' in answer_text
    assert 'value="x y"' in answer_text
    assert "must be a whole number" in answer_text
    answer = await ada.post(
        "/schedules/new", FORM | {"cron_expression": "61 * * * *", "name": "", "arg.to": ""}
    )
    assert answer.status_code == 422
    assert "the minute &#39;61&#39; is not allowed" in answer.text


async def test_a_preview_needs_no_script_and_makes_nothing(site: Site, crew: Crew, ada: Browser) -> None:
    answer = await ada.post("/schedules/new", FORM | {"preview": "1", "cron_expression": "0 9 * * MON"})
    assert answer.status_code == 200
    assert "At 09:00 on Monday, Europe/Warsaw time" in answer.text
    assert await stored(site) == []


async def test_what_is_being_typed_is_explained_with_daylight_saving(crew: Crew, ada: Browser) -> None:
    fragment = await ada.get("/schedules/preview?cron_expression=30+2+28+3+*&time_zone=Europe/Warsaw")
    assert fragment.text.count("<tr><td>") == 10
    spring = await ada.get(
        "/schedules/preview?cron_expression=30+2+*+*+*&time_zone=Europe/Warsaw&start_at=2027-03-28T00:00"
    )
    assert "02:30 does not exist on this day" in spring.text
    wrong = await ada.get("/schedules/preview?cron_expression=61+*+*+*+*")
    assert "the minute" in wrong.text
    for odd in (
        "",
        "?schedule_id=nothing&cron_expression=@daily&start_at=never",
        "?cron_expression=%00&time_zone=%00",
    ):
        assert (await ada.get(f"/schedules/preview{odd}")).status_code == 200


async def test_an_edit_says_what_it_changes_and_the_second_of_two_is_told(
    site: Site, crew: Crew, ada: Browser
) -> None:
    path = await made(ada, cron_expression="0 9 * * *")
    [schedule] = await stored(site)
    dry = await ada.get(
        f"/schedules/preview?schedule_id={schedule.id}&cron_expression=0+9,10+*+*+*&time_zone=Europe/Warsaw"
    )
    assert re.search(r"adds 7 and removes 0 runs", dry.text)
    edit = FORM | {"cron_expression": "0 10 * * *", "version": "1"}
    assert (await ada.post(f"{path}/edit", edit)).status_code == 303
    late = await ada.post(f"{path}/edit", edit | {"cron_expression": "0 11 * * *"})
    assert late.status_code == 422
    assert "was changed by somebody else" in late.text
    assert [one.cron_expression for one in await stored(site)] == ["0 10 * * *"]


async def test_a_secret_stays_when_its_field_is_left_empty(site: Site, crew: Crew, ada: Browser) -> None:
    path = await made(ada, function="pay", **{"arg.amount": "1", "arg.key": "hush"})
    [before] = await stored(site)
    assert "hush" not in (await ada.get(path)).text + (await ada.get(f"{path}/edit")).text
    edit = FORM | {"function": "pay", "arg.amount": "2", "arg.key": "", "version": "1"}
    assert (await ada.post(f"{path}/edit", edit)).status_code == 303
    [after] = await stored(site)
    assert (after.args["amount"], after.args["key"]) == (2, before.args["key"])


async def test_another_job_is_chosen_and_takes_the_arguments_that_it_knows(
    site: Site, crew: Crew, ada: Browser
) -> None:
    path = await made(ada, function="pay", **{"arg.amount": "1", "arg.key": "hush"})
    assert f'href="{path}/edit?function=send_email"' in (await ada.get(f"{path}/job")).text
    form = await ada.get(f"{path}/edit?function=send_email")
    assert 'name="arg.subject"' in form.text
    assert "hush" not in form.text
    assert [one.function for one in await stored(site)] == ["pay"]
    refused = await ada.post(f"{path}/edit", FORM | {"arg.to": "", "version": "1"})
    assert refused.status_code == 422
    assert 'value="send_email"' in refused.text
    assert (await ada.get(f"{path}/edit?function=nothing")).headers["location"] == f"{path}/job"
    assert (await ada.post(f"{path}/edit", FORM | {"version": "1"})).status_code == 303
    [after] = await stored(site)
    assert (after.function, after.args) == ("send_email", {"to": "ada@example.com", "subject": "hi"})


async def test_it_is_switched_paused_resumed_run_and_copied(site: Site, crew: Crew, ada: Browser) -> None:
    path = await made(ada)
    answer = await ada.post(f"{path}/disable", headers={"HX-Request": "true"})
    assert 'aria-checked="false"' in answer.text
    assert f"{path}/enable" in answer.text
    await ada.post(f"{path}/enable")
    ids = {"id": path.rpartition("/")[2]}
    assert "Pause morning mail?" in (await ada.post("/schedules/pause/chosen", ids)).text
    assert (await ada.post("/schedules/pause", ids | {"reason": "x" * 501})).status_code == 422
    paused = await ada.post("/schedules/pause", ids | {"reason": "holidays", "until": "2099-01-01T00:00"})
    assert paused.headers["location"] == path
    assert "holidays" in (await ada.get("/schedules")).text
    await ada.post(f"{path}/resume")
    await ada.post(f"{path}/run")
    [job] = await crew.jobs()
    assert job.args == {"to": "ada@example.com", "subject": "hi"}
    await crew.work()
    page = (await ada.get(path)).text
    assert f"/job-logs/{job.id}" in page
    assert "Ada, run now" in page
    copy = await ada.post(f"{path}/duplicate")
    assert copy.headers["location"].endswith("/edit")
    assert [one.name for one in await stored(site)] == ["morning mail", "morning mail copy"]


async def test_a_deleted_schedule_can_be_brought_back(site: Site, crew: Crew, ada: Browser) -> None:
    path = await made(ada)
    gone = await ada.post(f"{path}/delete")
    listed = await ada.get(gone.headers["location"])
    assert "Deleted morning mail." in flash_of(listed)
    assert f'action="{path}/restore"' in listed.text
    assert (await ada.get(path)).status_code == 303
    await ada.post(f"{path}/restore")
    assert (await ada.get(path)).status_code == 200


async def test_code_owned_schedules_say_so_and_stay(site: Site, crew: Crew, ada: Browser) -> None:
    path = await made(ada)
    await put(site, code_key="send_email", module="acme.jobs")
    assert "the next deploy overwrites" in (await ada.get(f"{path}/edit")).text
    assert f"{path}/delete" not in (await ada.get(path)).text
    refused = await ada.get((await ada.post(f"{path}/delete")).headers["location"])
    assert "belongs to the code of acme.jobs" in flash_of(refused)


async def test_the_list_shows_runs_gaps_and_the_last_result(site: Site, crew: Crew, ada: Browser) -> None:
    await made(ada, cron_expression="0 * * * *", missed="skip")
    hour = utc_now().replace(minute=0, second=0, microsecond=0)
    await put(site, next_fire_at=hour - timedelta(hours=3), missed="skip")
    await clock.fire_due(site.database, hour)
    await crew.work()
    page = (await ada.get("/schedules")).text
    assert "Last 4 instants of morning mail, 3 without a run" in page
    assert page.count("spark-none") == 3
    assert "is-success" in page


async def test_a_backfill_is_previewed_and_then_run(site: Site, crew: Crew, ada: Browser) -> None:
    path = await made(ada, cron_expression="0 * * * *", time_zone="UTC")
    until = utc_now().replace(minute=30) - timedelta(hours=1)
    wish = {"since": f"{until - timedelta(hours=3):%Y-%m-%dT%H:%M}", "until": f"{until:%Y-%m-%dT%H:%M}"}
    look = await ada.get(f"{path}/backfill", params=wish)
    assert "Run 3 jobs" in look.text
    assert await crew.jobs() == []
    done = await ada.get((await ada.post(f"{path}/backfill", wish)).headers["location"])
    assert "Started 3 jobs." in flash_of(done)
    assert "Nothing to run" in (await ada.get(f"{path}/backfill", params=wish)).text
    ahead = await ada.get(f"{path}/backfill", params=wish | {"until": "2099-01-01T00:00"})
    assert ahead.status_code == 422
    assert "lies ahead" in ahead.text


async def test_the_calendar_counts_what_is_coming_and_names_collisions(
    site: Site, crew: Crew, ada: Browser
) -> None:
    for name in ("one", "two"):
        await made(ada, name=name, cron_expression="0 12 * * *", time_zone="UTC")
    await made(ada, name="often", cron_expression="every 5s")
    for span, runs in (("24h", 2), ("7d", 14)):
        page = (await ada.get(f"/schedules/calendar?span={span}")).text
        found = re.search(r", (\d+) in all", page)
        assert found
        assert runs - 2 <= int(found[1]) <= runs
        assert ">one</a>" in page
        assert "1 schedule comes more often" in page
    assert (await ada.get("/schedules/calendar?span=nonsense")).status_code == 200


async def test_empty_lists_tell_apart_nothing_yet_and_nothing_found(crew: Crew, ada: Browser) -> None:
    assert "No schedule yet." in (await ada.get("/schedules")).text
    await made(ada)
    assert "No schedule matches." in (await ada.get("/schedules?q=zzz")).text
    assert "morning mail" in (await ada.get("/schedules?q=MORNING")).text


async def test_a_viewer_sees_no_buttons(crew: Crew, ada: Browser, vera: Browser) -> None:
    path = await made(ada)
    for where in ("/schedules", path):
        page = (await vera.get(where)).text
        assert "morning mail" in page
        assert "formaction" not in page
    assert (await vera.get(f"{path}/edit")).status_code == 403


async def test_the_history_is_paged(site: Site, crew: Crew, ada: Browser) -> None:
    path = await made(ada)
    [schedule] = await stored(site)
    now = utc_now()
    async with site.database.transaction() as session:
        for minute in range(60):
            session.add(
                ScheduleFire(
                    scheduled_job_id=schedule.id,
                    fire_at=now - timedelta(minutes=minute),
                    outcome="missed",
                    created_at=now,
                )
            )
    first = (await ada.get(path)).text
    older = re.search(r'href="([^"]*before=[^"]*)"', first)
    assert older
    second = (await ada.get(older[1].replace("&amp;", "&"))).text
    assert (first.count('id="fire-'), second.count('id="fire-')) == (50, 10)


async def test_a_job_knows_its_schedule(site: Site, crew: Crew, ada: Browser) -> None:
    path = await made(ada)
    await ada.post(f"{path}/run")
    async with site.database.session() as session:
        job = (await session.scalars(sa.select(JobLog))).one()
    assert f'href="{path}"' in (await ada.get(f"/job-logs/{job.id}?tab=trace")).text
    assert f'href="{path}"' in (await ada.get("/jobs/send_email")).text


async def test_a_schedule_that_nobody_looks_at_stands_in_the_overview(
    site: Site, crew: Crew, ada: Browser
) -> None:
    await made(ada)
    assert "schedule late" not in (await ada.get("/")).text
    await put(site, next_fire_at=utc_now() - timedelta(minutes=2))
    await site.app.state.cached.forget()
    assert "1 schedule late" in (await ada.get("/")).text
