"""What people write is evaluated in a child: right answers, JSON that cannot be broken out of, and an end for what takes too much."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from worker.errors import EvaluationAway
from worker.webhooks import payload, sandbox
from worker.webhooks.sandbox import Sandbox

FAILED = {
    "event_id": "e1", "event_type": "job.failed", "timestamp": "2026-11-22T09:00:00.000Z", "user_id": None,
    "data": {"job_id": "j1", "job_name": "send_<mail>", "queue": "mail", "attempt": 3, "note": 'He said "hi"\n\\', "tags": ["a", "b"]},
}  # fmt: skip
ABOUT = payload.about("Alerts", "https://desk.example")


@pytest.fixture
async def child():
    one = Sandbox()
    yield one
    await one.close()


async def test_a_condition_is_true_of_all_but_false_null_and_what_is_empty(child):
    cases = [
        ("data.attempt > `2`", True, "true"),
        ("data.attempt > `3`", False, "false"),
        ("data.queue == 'mail' && contains(data.tags, 'b')", True, "true"),
        ("data.queue", True, '"mail"'),
        ("data.absent", False, "null"),
        ("`0`", True, "0"),
        ("''", False, '""'),
        ("data.tags[?@ == 'z']", False, "[]"),
        ("`{}`", False, "{}"),
        ("data.tags", True, '["a", "b"]'),
    ]
    for expression, matched, value in cases:
        verdict = await child.condition(expression, FAILED)
        assert (expression, verdict.matched, verdict.value, verdict.error) == (
            expression,
            matched,
            value,
            None,
        )


async def test_a_condition_that_cannot_be_evaluated_says_why_and_matches_nothing(child):
    for expression, says in [
        ("data.", "data."),
        ("abs(data.queue)", "abs"),
        ("nothing(@)", "nothing"),
        ("length(data.attempt)", "length"),
    ]:
        verdict = await child.condition(expression, FAILED)
        assert not verdict.matched
        assert says in verdict.error


async def test_a_long_value_is_told_shortened(child):
    verdict = await child.condition("data.text", {"data": {"text": "x" * 5000}})
    assert verdict.matched
    assert len(verdict.value) == 1000


async def test_a_template_fills_json_and_no_value_breaks_out_of_its_quotes(child):
    template = '{"note": "{{ data.note }}", "n": {{ data.attempt }}, "by": {{ user_id }}, "tags": {{ data.tags }}, "q": {{ data.queue | tojson }}, "up": "{{ data.note | upper }}"}'
    rendered = await child.render(template, FAILED, ABOUT)
    assert rendered.error is None
    assert json.loads(rendered.body) == {
        "note": FAILED["data"]["note"], "n": 3, "by": None, "tags": ["a", "b"], "q": "mail", "up": FAILED["data"]["note"].upper(),
    }  # fmt: skip


async def test_a_hostile_value_stays_one_value(child):
    for evil in (
        '", "admin": true, "x": "',
        "\\",
        "\n",
        "{{ 7 * 7 }}",
        "</script>",
        "\u2028",
        "é\x07",
        "{% raw %}",
    ):
        rendered = await child.render(
            '{"a": "{{ data.a }}", "b": {{ data.a | tojson }}}', {"data": {"a": evil}}
        )
        assert json.loads(rendered.body) == {"a": evil, "b": evil}


async def test_what_is_not_in_the_event_is_an_error_that_names_it(child):
    rendered = await child.render('{"a": "{{ data.absent }}"}', FAILED)
    assert (rendered.body, rendered.error) == (None, "the event has no absent")
    assert (await child.render("{{ absent }}", FAILED)).error == "the event has no absent"
    assert json.loads((await child.render('{"a": "{{ data.absent | default("-") }}"}', FAILED)).body) == {
        "a": "-"
    }


async def test_a_template_that_makes_no_json_says_so_and_shows_what_it_made(child):
    rendered = await child.render('{"a": {{ data.queue }}}', FAILED)
    assert "did not make JSON" in rendered.error
    assert rendered.text == '{"a": mail}'


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ event.__class__.__init__.__globals__ }}",
    "{{ range.__self__ }}",
    "{{ ('{0.__class__}').format(1) }}",
    "{{ (data | attr('__class__')) }}",
    "{{ data.update({'a': 1}) }}",
    "{{ self.__init__ }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ lipsum() }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% macro m() %}{% endmacro %}",
    "{% filter upper %}x{% endfilter %}",
    "{% set x %}a{% endset %}",
]


async def test_a_template_reaches_nothing_but_the_event(child):
    for template in ESCAPES:
        rendered = await child.render(template, FAILED)
        assert rendered.body is None, template
        assert rendered.error


async def test_a_check_names_what_cannot_be_read(child):
    assert await child.check("condition", "data.attempt > `2`") is None
    assert await child.check("template", "{}") is None
    assert await child.check("condition", "data.[")
    assert "line 2" in await child.check("template", "{\n{% if %}")
    assert "macro" in await child.check("template", "{% macro m() %}{% endmacro %}")
    assert "1 to 2000" in await child.check("condition", "a" * 2001)
    assert "1 to 20000" in await child.check("template", "")


ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
HUNGRY = [
    ("template", ENDLESS),
    ("template", "{{ 9 ** 99999999 }}"),
    ("template", "{{ 'x' * 1000000000 }}"),
    ("template", "{% for a in range(90000) %}{{ 'x' * 9000 }}{% endfor %}"),
    ("condition", "[@,@]" + "|[@,@]" * 30 + "|to_string(@)"),
]
"""The last one has 200 characters, and each of its levels doubles what the one before it made."""


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux are memory and time bounded by the kernel")
@pytest.mark.parametrize(("kind", "source"), HUNGRY)
async def test_what_takes_too_much_is_ended_and_others_go_on(child, kind, source, monkeypatch):
    monkeypatch.setattr(sandbox, "CPU_S", 0.2)
    ask = child.render if kind == "template" else child.condition
    assert (await ask(source, FAILED)).error in (
        "took more than 200 ms",
        "needs more memory than it may have",
    )
    verdict = await child.condition("data.queue", FAILED)
    assert (verdict.matched, verdict.killed) == (True, False)
    if kind == "condition":
        assert (await child.condition(source, FAILED)).killed


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux are memory and time bounded by the kernel")
async def test_memory_is_bounded_by_itself(child, monkeypatch):
    monkeypatch.setattr(sandbox, "CPU_S", 30)
    rendered = await child.render("{{ 'x' * 300000000 }}", FAILED)
    assert rendered.error == "needs more memory than it may have"


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux are memory and time bounded by the kernel")
async def test_what_was_ended_once_is_refused_at_once_for_a_minute(child, monkeypatch):
    monkeypatch.setattr(sandbox, "CPU_S", 0.1)
    assert (await child.render(ENDLESS, FAILED)).error == "took more than 100 ms"
    asked = []
    monkeypatch.setattr(child, "_exchange", asked.append)
    assert (await child.render(ENDLESS, FAILED)).error == "took more than 100 ms"
    assert asked == []


async def test_the_child_has_none_of_this_process_environment(child, monkeypatch):
    monkeypatch.setenv("M_SECRET_KEY", "k" * 40)
    await child.condition("@", {})
    if sys.platform == "linux":
        held = Path(f"/proc/{child._child.pid}/environ").read_bytes()
        assert b"M_SECRET_KEY" not in held


async def test_a_child_that_was_killed_from_outside_is_replaced(child):
    assert (await child.condition("data.queue", FAILED)).matched
    child._child.kill()
    await child._child.wait()
    assert (await child.condition("data.queue", FAILED)).matched


async def test_who_stops_waiting_does_not_leave_an_answer_for_the_next(child):
    await child.condition("@", {})
    waiting = asyncio.create_task(child.condition("'first'", FAILED))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (await child.condition("'second'", FAILED)).value == '"second"'


async def test_many_ask_at_once_and_each_gets_its_own_answer(child):
    verdicts = await asyncio.gather(*(child.condition(f"`{n}`", {}) for n in range(200)))
    assert [verdict.value for verdict in verdicts] == [str(n) for n in range(200)]


async def test_a_child_that_cannot_start_is_told_and_can_be_tried_again(child, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(sandbox.sys, "executable", "/nowhere/python")
        with pytest.raises(EvaluationAway):
            await child.condition("@", {})
    assert (await child.condition("'x'", {})).matched


async def test_closing_ends_the_child():
    one = Sandbox()
    await one.condition("@", {})
    pid = one._child.pid
    await one.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


EVENTS = [
    FAILED,
    {"event_id": "e2", "event_type": "queue.backlog", "timestamp": "2026-11-22T09:00:00.000Z", "data": {"queue": "mail"}},
    {"event_id": "e3", "event_type": "doc.created", "timestamp": "2026-11-22T09:00:00.000Z", "doctype": "Invoice", "doc_id": "7", "data": {}},
    {"event_id": "e4", "event_type": "a.b", "timestamp": "2026-11-22T09:00:00.000Z", "data": {"x": 1}},
]  # fmt: skip


@pytest.mark.parametrize("name", payload.TEMPLATES)
async def test_a_ready_template_makes_json_of_every_kind_of_event(child, name):
    assert await child.check("template", payload.TEMPLATES[name]) is None
    for event in EVENTS:
        rendered = await child.render(payload.TEMPLATES[name], event, ABOUT)
        assert rendered.error is None
        assert event["event_type"] in rendered.body.decode()


async def test_the_text_for_slack_links_the_job_and_escapes_its_name(child):
    text = json.loads((await child.render(payload.TEMPLATES["slack"], FAILED, ABOUT)).body)["text"]
    assert text == "*job.failed* send_&lt;mail&gt; (<https://desk.example/job-logs/j1|open the desk>)"


def test_the_standard_body_has_type_time_and_data_first_and_nothing_empty():
    event = {**EVENTS[2], "user_id": None}
    assert payload.standard(event) == (
        b'{"type":"doc.created","timestamp":"2026-11-22T09:00:00.000Z","event_id":"e3","doctype":"Invoice","doc_id":"7","data":{}}'
    )
