"""New rows of an open list, and the lines of a running job."""

from __future__ import annotations

import json

from webapp.live.waiting import FRAME_BYTES


async def test_a_list_is_told_how_many_are_newer_than_its_first_row(one):
    first = await one.job()
    async with one.page() as page:
        await page.watch(("job-list:", str(first)))
        await page.told(newer="job-list:", count=0)
        await one.job()
        await page.told(newer="job-list:", count=1, more=False)


async def test_a_hundred_new_rows_are_counted_and_no_more(one):
    first = await one.job()
    for _ in range(101):
        await one.job()
    async with one.page() as page:
        await page.watch(("job-list:", str(first)))
        await page.told(newer="job-list:", count=100, more=True)


async def test_only_rows_that_match_the_search_are_new(one):
    first = await one.job(queue="mail")
    await one.job(queue="other")
    await one.job(queue="mail")
    async with one.page() as page:
        await page.watch(("job-list:queue:mail", str(first)), ("job-list:queue:none", ""))
        await page.told(newer="job-list:queue:mail", count=1)
        await page.told(newer="job-list:queue:none", count=0)


async def test_pages_with_the_same_search_share_one_query_and_get_their_own_counts(one):
    jobs = [await one.job() for _ in range(3)]
    async with one.page() as a, one.page() as b:
        await a.watch(("job-list:", str(jobs[0])))
        await b.watch(("job-list:", str(jobs[2])))
        await a.told(newer="job-list:", count=2)
        await b.told(newer="job-list:", count=0)


async def test_the_page_may_fetch_the_rows_right_above_its_first(one):
    jobs = [await one.job() for _ in range(8)]
    async with one.page() as page:
        await page.say({"rows": {"key": "job-list:", "after": str(jobs[0]), "limit": 5}})
        answer = await page.told(rows="job-list:")
        at = [answer["content"].find(f'data-live="job-row:{job}"') for job in jobs]
        assert [place >= 0 for place in at] == [False] + [True] * 5 + [False] * 2
        assert at[5] < at[1], "the newest stands first"
        assert (answer["target"], answer["swap"]) == ("#job-rows", "afterbegin")


async def test_a_search_that_must_look_at_every_row_counts_nothing(one):
    first = await one.job()
    await one.job()
    async with one.page() as page:
        await page.watch(("job-list:args.a:1", str(first)))
        await page.told(newer="job-list:args.a:1", count=0)


async def test_lines_are_appended_after_the_last_one_on_the_page(one):
    job = await one.job(status="running")
    await one.log(job, "one", "two", first=1)
    async with one.page() as page:
        await page.watch((f"job-lines:{job}", "1-1"))
        await page.shows("two")
        assert ">one<" not in page.html
        assert f"""hx-target="[data-live-append='job-lines:{job}']" hx-swap="beforeend">""" in page.html
        await one.log(job, "three", first=3)
        await page.shows("three")
        assert page.html.count("two") == 1


async def test_a_job_that_logs_much_arrives_whole_and_in_order(one):
    job = await one.job(status="running")
    await one.log(job, *[f"<line {n}> " + "x" * 300 for n in range(1, 1001)], first=1)
    async with one.page() as page:
        await page.watch((f"job-lines:{job}", ""))
        await page.shows("&lt;line 1000&gt;")
        at = [page.html.index(f"&lt;line {n}&gt;") for n in range(1, 1001)]
        assert at == sorted(at)
        assert max(len(frame.encode()) for frame in page.frames) <= FRAME_BYTES


async def test_two_pages_at_different_lines_each_get_the_rest(one):
    job = await one.job(status="running")
    await one.log(job, "one", "two", "three", first=1)
    async with one.page() as a, one.page() as b:
        await a.watch((f"job-lines:{job}", "1-1"))
        await b.watch((f"job-lines:{job}", "1-2"))
        await a.shows("three")
        await b.shows("three")
        assert "two" in a.html
        assert "two" not in b.html


async def test_lines_of_a_second_run_follow_those_of_the_first(one):
    job = await one.job(status="running")
    await one.log(job, "first run", first=900, epoch=1)
    await one.log(job, "second run", first=1, epoch=2)
    async with one.page() as page:
        await page.watch((f"job-lines:{job}", "1-900"))
        await page.shows("second run")
        assert "first run" not in page.html


async def test_what_does_not_fit_into_a_frame_is_left_to_the_page(one):
    job = await one.job()
    fragment = one.live.quick.sources["job-row"]
    fragment.render = lambda template, context: "x" * (FRAME_BYTES + 1)
    async with one.page() as page:
        await page.watch((f"job-row:{job}", "0"))
        await page.told(stale=f"job-row:{job}")
        assert page.frames == []


async def test_names_that_nobody_knows_are_ignored(one):
    job = await one.job()
    async with one.page() as page:
        odd = [
            ("nothing", ""),
            ("job-row:", ""),
            ("job-row:x']", ""),
            ("job-row:'<b>", "1"),
            ("job-lines:x", "a-b"),
        ]
        await page.watch(
            *odd, (f"job-row:{job}", "0"), ("job-list:status:nonsense", ""), ("job-list:", "no-uuid")
        )
        await page.shows(str(job))
        assert json.dumps(page.messages).count("nonsense") <= 1
        await one.move(job, status="running")
        await page.shows('data-rev="2"')
