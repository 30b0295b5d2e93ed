"""Running a job from its form."""

from __future__ import annotations

from tests.webapp.pages.conftest import Crew, job_id_of
from tests.webapp.site import Browser

FULL = {
    "arg.path": "a.png",
    "arg.size": "large",
    "arg.pages": "7",
    "arg.scale": "2.25",
    "arg.day": "2026-11-22",
    "arg.at": "2026-11-22T10:30",
    "arg.tags": "one\ntwo",
    "arg.options": '{"depth": 2}',
    "arg.dry": "true",
    "queue": "default",
    "priority": "1",
}


async def test_a_form_from_the_signature_runs_the_job_with_what_was_filled_in(
    crew: Crew, ada: Browser
) -> None:
    form = await ada.get("/jobs/convert/run")
    for control in (
        'name="arg.path"',
        'type="number"',
        'type="date"',
        'type="datetime-local"',
        ">large</option>",
    ):
        assert control in form.text
    answer = await ada.post("/jobs/convert/run", FULL)
    assert answer.status_code == 303
    job = await crew.job(job_id_of(answer))
    assert job.args == {
        "path": "a.png", "size": "large", "pages": 7, "scale": "2.25", "day": "2026-11-22", "at": "2026-11-22T10:30Z",
        "tags": ["one", "two"], "options": {"depth": 2}, "dry": True,
    }  # fmt: skip
    assert (job.priority, job.user_id) == (1, "Ada")
    await crew.work()
    assert (await crew.job(job.id)).status == "success"


async def test_a_refused_form_names_each_mistake_and_keeps_what_was_typed(crew: Crew, ada: Browser) -> None:
    typed = FULL | {
        "arg.path": "",
        "arg.pages": "many",
        "arg.options": "{oops",
        "priority": "12",
        "run_at": "soon",
    }
    answer = await ada.post("/jobs/convert/run", typed)
    assert answer.status_code == 422
    for words in (
        "is required",
        "must be a whole number",
        "is not JSON",
        "from 0 (first) to 9 (last)",
        "must be a time",
    ):
        assert words in answer.text
    for kept in ('value="many"', "{oops", 'value="12"', 'value="soon"', "one\ntwo", 'value="2.25"'):
        assert kept in answer.text
    assert await crew.jobs() == []


async def test_the_json_view_takes_the_same_arguments_and_keeps_a_mistake(crew: Crew, ada: Browser) -> None:
    assert 'name="args"' in (await ada.get("/jobs/convert/run?as=json")).text
    common = {"queue": "default", "priority": "5"}
    wrong = await ada.post("/jobs/convert/run", {"args": '{"path": 5, "size": "huge"}', **common})
    assert wrong.status_code == 422
    assert "&#34;huge&#34;" in wrong.text
    good = await ada.post("/jobs/convert/run", {"args": '{"path": "b.png", "size": "small"}', **common})
    assert (await crew.job(job_id_of(good))).args == {"path": "b.png", "size": "small"}


async def test_two_clicks_on_run_make_one_job(crew: Crew, ada: Browser) -> None:
    form = {"arg.to": "ada@example.com", "queue": "mail", "priority": "5", "once": "a-key-of-this-form"}
    first, second = await ada.post("/jobs/send_email/run", form), await ada.post("/jobs/send_email/run", form)
    assert job_id_of(first) == job_id_of(second)
    assert len(await crew.jobs()) == 1


async def test_a_later_time_and_a_unique_key_hold(crew: Crew, ada: Browser) -> None:
    form = {
        "arg.to": "ada@example.com", "queue": "mail", "priority": "5", "run_at": "2126-01-02T03:04",
        "unique_key": "one", "tags": "a, b",
    }  # fmt: skip
    first, second = await ada.post("/jobs/send_email/run", form), await ada.post("/jobs/send_email/run", form)
    job = await crew.job(job_id_of(first))
    assert (job.status, job.run_at.isoformat(), job.tags) == (
        "scheduled",
        "2126-01-02T03:04:00+00:00",
        ["a", "b"],
    )
    assert job_id_of(second) == str(job.id)


async def test_a_secret_is_stored_sealed_and_never_shown(crew: Crew, ada: Browser) -> None:
    form = {"arg.amount": "3", "arg.key": "hunter2-hunter2", "queue": "default", "priority": "5"}
    job_id = job_id_of(await ada.post("/jobs/pay/run", form))
    assert "hunter2" not in str((await crew.job(job_id)).args)
    await crew.work()
    for page in (
        f"/job-logs/{job_id}?tab=args",
        f"/job-logs/{job_id}/edit",
        "/job-logs",
        f"/job-logs/{job_id}/edit?as=json",
    ):
        answer = await ada.get(page)
        assert answer.status_code == 200
        assert "hunter2" not in answer.text
        assert "$secret" not in answer.text
    assert (await crew.job(job_id)).result == {"length": 15}
    again = job_id_of(await ada.post(f"/job-logs/{job_id}/edit", {"arg.amount": "4", "arg.key": ""}))
    await crew.work()
    rerun = await crew.job(again)
    assert (rerun.status, rerun.result, rerun.args["amount"]) == ("success", {"length": 15}, 4)


async def test_an_unknown_job_leads_back_to_the_list(ada: Browser) -> None:
    for answer in (
        await ada.get("/jobs/nothing"),
        await ada.get("/jobs/nothing/run"),
        await ada.post("/jobs/nothing/run"),
    ):
        assert (answer.status_code, answer.headers["location"]) == (303, "/jobs")


async def test_the_catalogue_tells_what_each_job_is(crew: Crew, ada: Browser) -> None:
    await crew.enqueue("send_email", to="ada@example.com")
    await crew.work()
    listed = (await ada.get("/jobs")).text
    for words in ("send_email", "Sends one message.", "100 %", "convert"):
        assert words in listed
    assert "convert" not in (await ada.get("/jobs?q=message")).text
    shown = (await ada.get("/jobs/convert")).text
    for words in ("one of small, large", "whole number", "list of text", "required"):
        assert words in shown


async def test_a_job_is_paused_with_a_reason_and_resumed(crew: Crew, ada: Browser) -> None:
    answer = await ada.post("/jobs/send_email/pause", {"reason": "smtp is down"})
    assert answer.headers["location"] == "/jobs/send_email"
    assert "smtp is down" in (await ada.get("/jobs/send_email")).text
    job_id = await crew.enqueue("send_email", to="ada@example.com")
    await crew.work()
    assert (await crew.job(job_id)).status == "queued"
    await ada.post("/jobs/send_email/resume")
    await crew.work()
    assert (await crew.job(job_id)).status == "success"
