"""GET /api/v1/jobs: filters, pages, and parameters that are refused by name."""

from tests.webapp.api.conftest import Client


async def ids(client: Client, query: str) -> list[str]:
    status, page = await client.call("GET", f"/jobs?{query}")
    assert status == 200, page
    return [job["job_id"] for job in page["items"]]


async def test_pages_follow_each_other_without_gap_or_repeat(operator: Client) -> None:
    made = [(await operator.run(args={"a": n}))["job_id"] for n in range(7)]
    seen, cursor = [], ""
    while cursor is not None:
        _, page = await operator.call("GET", f"/jobs?limit=3&cursor={cursor}")
        assert len(page["items"]) <= 3
        seen += [job["job_id"] for job in page["items"]]
        cursor = page["next_cursor"]
    assert seen == made[::-1]


async def test_filters_narrow_and_combine(operator: Client) -> None:
    add, mail = await operator.run(), await operator.run("send_email", {"to": "ada@example.com"})
    later = await operator.run(run_at="2099-01-01T00:00:00Z")
    assert await ids(operator, "job_name=send_email") == [mail["job_id"]]
    assert await ids(operator, "queue=sums") == [later["job_id"], add["job_id"]]
    assert await ids(operator, "status=scheduled&queue=sums") == [later["job_id"]]
    assert await ids(operator, "status=scheduled,queued") == [later["job_id"], mail["job_id"], add["job_id"]]
    assert await ids(operator, "status=scheduled&status=queued&job_name=add") == [
        later["job_id"],
        add["job_id"],
    ]
    assert await ids(operator, "q=args.to:ada") == [mail["job_id"]]
    assert await ids(operator, "status=&job_name=&queue=&q=&limit=&cursor=") == [
        later["job_id"], mail["job_id"], add["job_id"],
    ]  # fmt: skip


async def test_a_result_stands_in_the_list_unless_it_is_long(operator: Client) -> None:
    short, long = await operator.run(), await operator.run()
    await operator.set(short["job_id"], status="success", result={"sum": 2})
    await operator.set(long["job_id"], status="success", result="x" * 20_000)
    _, page = await operator.call("GET", "/jobs")
    assert [job["result"] for job in page["items"]] == [None, {"sum": 2}]
    assert (await operator.call("GET", f"/jobs/{long['job_id']}"))[1]["result"] == "x" * 20_000


WRONG = [
    ("limit=1000000000", "limit", '"1000000000" is not allowed; it must be a whole number from 1 to 200'),
    ("limit=-1", "limit", '"-1" is not allowed'),
    ("limit=0", "limit", '"0" is not allowed'),
    ("limit=1.5", "limit", "whole number"),
    ("limit=" + "9" * 5000, "limit", "whole number"),
    ("status=nope", "status", "one or more of scheduled, queued"),
    ("status=queued,nope", "status", '"nope"'),
    ("sort=status;drop", "sort", "enqueued, started, completed or duration"),
    ("cursor=garbage", "cursor", "not one that this list gave"),
    ("cursor=older~zz", "cursor", "not one that this list gave"),
    ("queue=a.b", "queue", "a queue name"),
    ("q=nope:1", "q", "nope"),
    ("q=" + "x" * 1001, "q", "1000"),
    ("q=%00", "q", "character"),
    ("page=2", "page", "known are status, job_name"),
    ("limit=1&limit=2", "limit", "more than once"),
    ("days=99999999", "days", "known are"),
]


async def test_a_wrong_parameter_is_named_with_what_is_allowed(viewer: Client) -> None:
    for query, parameter, words in WRONG:
        status, answer = await viewer.call("GET", f"/jobs?{query}")
        assert (query[:40], status) == (query[:40], 422)
        assert words in viewer.problems(answer)[parameter], query[:40]


async def test_all_wrong_parameters_are_named_at_once(viewer: Client) -> None:
    _, answer = await viewer.call("GET", "/jobs?limit=0&status=x&sort=y&foo=1")
    assert viewer.problems(answer).keys() == {"limit", "status", "sort", "foo"}


async def test_a_search_takes_wildcards_and_quotes_as_text(operator: Client) -> None:  # cases 33 and 36
    await operator.run("send_email", {"to": "ada@example.com"})
    for q in ("' OR 1=1--", "%", "_", '"%"', "\\", "(a+)+$"):
        answer = await operator.raw("GET", "/jobs", params={"q": q})
        assert (q, answer.status_code, answer.json()["items"]) == (q, 200, [])
