"""What a job left in its row may name any class: it is shown as it stands, and never made into one (case 39)."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from taskiq import AsyncTaskiqTask

from tests.webapp.rows import Rows
from tests.webapp.site import Site, running_site
from worker import cli
from worker.errors import JobFailed

TRAP = "a_module_that_must_not_be_imported"
NAMED: list[dict[str, Any]] = [
    {"exc_type": "SystemExit", "exc_message": ["7"], "exc_module": "builtins", "exc_cause": None},
    {"exc_type": "Sprung", "exc_message": ["x"], "exc_module": TRAP, "exc_notes": ["y"]},
    {"__class__": "os.system", "__args__": [f"import {TRAP}"]},
    {"py/object": f"{TRAP}.Sprung", "py/reduce": [{"py/type": f"{TRAP}.Sprung"}, {"py/tuple": []}]},
    {"$type": f"{TRAP}.Sprung", "__reduce__": [f"{TRAP}.Sprung", []], "!!python/object": f"{TRAP}.Sprung"},
]
"""As Taskiq, Celery, jsonpickle and their like write exceptions and objects down."""


@pytest.fixture
def sprung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that exists once the trap was imported, by this process or by one that it started."""
    mark = tmp_path / "sprung"
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / f"{TRAP}.py").write_text(
        f"open({str(mark)!r}, 'w').close()\nclass Sprung(Exception):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    yield mark
    sys.modules.pop(TRAP, None)


@pytest.fixture
async def site(database_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(database_url, tmp_path) as site:
        yield site


async def test_pages_and_the_api_show_what_names_a_class_as_it_stands(site: Site, sprung: Path) -> None:
    browser, token = await site.signed_in(role="admin"), await site.token("viewer")
    for named in NAMED:
        failed, done = await _jobs(site, named)
        texts = [(await browser.get("/job-logs")).text]
        for job_id, tab in ((failed, "error"), (done, "result")):
            page = await browser.get(f"/job-logs/{job_id}?tab={tab}")
            assert page.status_code == 200
            texts.append(page.text)
        first = next(iter(named))
        assert all(first in text for text in texts)
        answers = [await _asked(site, token, job_id) for job_id in (failed, done)]
        assert answers[0]["error"] == json.dumps(named)
        assert answers[1]["result"] == named
    assert not sprung.exists()


async def test_who_waits_for_a_result_gets_one_kind_of_error_and_plain_values(
    site: Site, sprung: Path
) -> None:
    for named in NAMED:
        failed, done = await _jobs(site, named)
        backend = site.engine.broker.result_backend
        result = await AsyncTaskiqTask(str(failed), backend).wait_result(timeout=30)
        assert type(result.error) is JobFailed
        assert json.dumps(named) in str(result.error)
        with pytest.raises(JobFailed):
            result.raise_for_error()
        value = (await AsyncTaskiqTask(str(done), backend).wait_result(timeout=30)).return_value
        assert (type(value), value) == (dict, named)
    assert not sprung.exists()


async def test_the_command_line_prints_it(
    site: Site,
    sprung: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = site.engine.settings
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("M_HOME", str(settings.home))
    monkeypatch.setenv("M_SECRET_KEY", settings.secret_key)
    for named in NAMED[:2]:
        for job_id, field, wanted in zip(
            await _jobs(site, named), ("error", "result"), (json.dumps(named), named), strict=True
        ):
            capsys.readouterr()
            assert await asyncio.to_thread(cli.run, ["job", "status", str(job_id), "--json"]) == 0
            assert json.loads(capsys.readouterr().out)[field] == wanted
            assert await asyncio.to_thread(cli.run, ["job", "status", str(job_id)]) == 0
    assert not sprung.exists()


async def _jobs(site: Site, named: dict[str, Any]) -> tuple[UUID, UUID]:
    """One that failed and one that succeeded with this in its row."""
    rows, text = Rows(site.database), json.dumps(named)
    failed, done = await rows.add(
        rows.job("greet", "failed", error=text, traceback=f"Traceback\n{text}\n{text}", ago_s=next(_ages)),
        rows.job("greet", "success", result=named, args=named, ago_s=next(_ages)),
    )
    return failed, done


_ages = iter(range(60, 10_000))


async def _asked(site: Site, token: str, job_id: UUID) -> dict[str, Any]:
    answer = await site.browser().get(f"/api/v1/jobs/{job_id}", headers={"Authorization": f"Bearer {token}"})
    found: dict[str, Any] = answer.json()
    return found
