"""What a killed process had ended is written by whoever buries it; nothing else is."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError

from tests.worker.joblogs.conftest import Bench, goes_away_after
from worker.db.base import new_id, utc_now
from worker.db.session import Database
from worker.joblogs.claims import Claimed
from worker.joblogs.finishes import Outcome, write_outcomes
from worker.joblogs.journal import FEW, FOLDER, YOUNG_S, Journal, tidy, write_left
from worker.joblogs.recorder import Recorder
from worker.joblogs.sweeper import rescue_worker


def kept(home: Path, recorder: Recorder, *outcomes: Outcome) -> Path:
    """The journal of a process that was killed before it could write these."""
    journal = Journal(home, recorder.worker_id)
    for outcome in outcomes:
        journal.note(outcome)
    return home / FOLDER / recorder.worker_id.hex


async def test_a_success_that_its_process_could_not_write_any_more_is_a_success(bench: Bench, tmp_path: Path):
    recorder = await bench.recorder()
    ended, cut = await bench.running(recorder), await bench.running(recorder)
    kept(tmp_path, recorder, Outcome(ended, "success", result='"naïve"'))
    assert await write_left(bench.database, tmp_path, recorder.worker_id) == 1
    assert await rescue_worker(bench.database, recorder.worker_id, "killed") == 1, "the other one was cut off"
    row, other = await bench.row(ended.id), await bench.row(cut.id)
    assert (row.status, row.result, row.epoch, row.lost_count) == ("success", "naïve", ended.epoch, 0)
    assert (other.status, other.lost_count) == ("queued", 1)
    assert (await bench.events()).count("job.succeeded") == 1


async def test_a_failure_waits_for_its_retry_as_its_process_had_decided(bench: Bench, tmp_path: Path):
    recorder = await bench.recorder()
    ended = await bench.running(recorder)
    failed = Outcome(
        ended, "retrying", error="ValueError: no", traceback="…", reason="error", retry_after_s=60
    )
    kept(tmp_path, recorder, failed)
    await write_left(bench.database, tmp_path, recorder.worker_id)
    row = await bench.row(ended.id)
    assert (row.status, row.error) == ("retrying", "ValueError: no")
    assert [attempt.outcome for attempt in await bench.attempts(ended.id)] == ["retrying"]


@pytest.mark.parametrize("offender", [0, 2, 4])
async def test_an_end_that_the_database_refuses_fails_alone_and_the_others_are_written(
    bench: Bench, tmp_path: Path, offender: int
):
    recorder = await bench.recorder()
    jobs = [await bench.running(recorder) for _ in range(5)]
    statuses: list[Any] = ["no_status" if place == offender else "success" for place in range(5)]
    path = kept(
        tmp_path, recorder, *(Outcome(job, status) for job, status in zip(jobs, statuses, strict=True))
    )
    assert await write_left(bench.database, tmp_path, recorder.worker_id) == 5
    rows = [await bench.row(job.id) for job in jobs]
    assert [row.status for row in rows] == [
        "failed" if status == "no_status" else status for status in statuses
    ]
    assert rows[offender].reason == "result_unstorable"
    assert "ck_job_logs_status" in (rows[offender].error or "")
    assert not path.exists()
    assert await rescue_worker(bench.database, recorder.worker_id, "killed") == 0


async def test_what_cannot_even_be_written_as_a_failure_is_left_to_the_rescue(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recorder = await bench.recorder()
    good, bad = await bench.running(recorder), await bench.running(recorder)

    async def write(database: Database, worker_id: UUID, outcomes: Sequence[Outcome]) -> list[bool]:
        if any(outcome.claimed.id == bad.id for outcome in outcomes):
            raise DBAPIError("UPDATE", {}, Exception("never"))
        return await write_outcomes(database, worker_id, outcomes)

    monkeypatch.setattr("worker.joblogs.journal.write_outcomes", write)
    kept(tmp_path, recorder, Outcome(good, "success"), Outcome(bad, "success"))
    assert await write_left(bench.database, tmp_path, recorder.worker_id) == 1
    assert [(await bench.row(job.id)).status for job in (good, bad)] == ["success", "running"]


async def test_a_database_that_is_away_leaves_the_journal_for_the_next_try(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recorder = await bench.recorder()
    path = kept(tmp_path, recorder, Outcome(await bench.running(recorder), "success"))
    goes_away_after(monkeypatch, bench, 0)
    with pytest.raises(OSError, match="away"):
        await write_left(bench.database, tmp_path, recorder.worker_id)
    monkeypatch.undo()
    assert path.exists()
    assert await write_left(bench.database, tmp_path, recorder.worker_id) == 1


async def test_what_was_taken_back_before_is_not_ended_by_a_journal(bench: Bench, tmp_path: Path):
    old, new = await bench.recorder(), await bench.recorder()
    job = await bench.running(old)
    kept(tmp_path, old, Outcome(job, "success", result="1"))
    await rescue_worker(bench.database, old.worker_id, "killed")
    assert await new.claim(job.id) is not None
    assert await write_left(bench.database, tmp_path, old.worker_id) == 0
    assert (await bench.row(job.id)).status == "running"


async def test_a_line_that_was_cut_short_says_nothing_and_the_others_count(bench: Bench, tmp_path: Path):
    recorder = await bench.recorder()
    whole, torn = await bench.running(recorder), await bench.running(recorder)
    path = kept(tmp_path, recorder, Outcome(whole, "success"), Outcome(torn, "success"))
    path.write_bytes(path.read_bytes()[:-5])
    assert await write_left(bench.database, tmp_path, recorder.worker_id) == 1
    assert [(await bench.row(job.id)).status for job in (whole, torn)] == ["success", "running"]


async def test_a_second_burial_finds_nothing(bench: Bench, tmp_path: Path):
    recorder = await bench.recorder()
    path = kept(tmp_path, recorder, Outcome(await bench.running(recorder), "success"))
    assert [await write_left(bench.database, tmp_path, recorder.worker_id) for _ in range(2)] == [1, 0]
    assert not path.exists()


async def test_a_process_that_wrote_everything_leaves_no_file(bench: Bench, tmp_path: Path):
    recorder = await bench.recorder()
    journal = Journal(tmp_path, recorder.worker_id)
    recorder = Recorder(bench.database, recorder.worker_id, recorder.scope, journal=journal)
    job = await bench.running(recorder)
    outcome = Outcome(job, "success", result="1")
    recorder.keep(outcome)
    path = tmp_path / FOLDER / recorder.worker_id.hex
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes().count(b"\n") == 1
    await recorder.finish(outcome)
    await recorder.close()
    assert not path.exists()


def test_the_file_stays_short_and_keeps_what_is_owed(tmp_path: Path):
    worker_id = new_id()
    journal, path = Journal(tmp_path, worker_id), tmp_path / FOLDER / worker_id.hex
    owed = Outcome(_claimed(), "success", result='"owed"')
    journal.note(owed)
    for _ in range(300):
        outcome = Outcome(_claimed(), "success", result='"' + "x" * 1000 + '"')
        journal.note(outcome)
        journal.settled(outcome)
        assert path.stat().st_size < FEW + 10_000
    journal.close()
    assert path.read_text().count("owed") == 1


def test_without_a_place_to_write_nothing_is_kept_and_nothing_fails(tmp_path: Path):
    (tmp_path / FOLDER).write_text("a file where the folder should be")
    journal = Journal(tmp_path, new_id())
    outcome = Outcome(_claimed(), "success")
    journal.note(outcome)
    journal.settled(outcome)
    journal.close()


async def test_only_old_journals_of_workers_that_have_ended_are_removed(bench: Bench, tmp_path: Path):
    living, ended, young = await bench.recorder(), await bench.recorder(), new_id()
    await rescue_worker(bench.database, ended.worker_id, "stopped")
    for worker_id in (living.worker_id, ended.worker_id, young):
        Journal(tmp_path, worker_id)
    now_s, folder = time.time(), tmp_path / FOLDER
    for worker_id in (living.worker_id, ended.worker_id):
        os.utime(folder / worker_id.hex, (now_s - YOUNG_S - 1,) * 2)
    (folder / "readme").write_text("somebody else's")
    assert await tidy(bench.database, tmp_path, now_s) == 1
    assert {path.name for path in folder.iterdir()} == {living.worker_id.hex, young.hex, "readme"}


async def test_without_a_folder_there_is_nothing_to_remove(bench: Bench, tmp_path: Path):
    assert await tidy(bench.database, tmp_path / "none", time.time()) == 0


def _claimed() -> Claimed:
    now = utc_now()
    return Claimed(
        new_id(), "add", "default", 5, {}, 1, 3, 300.0, 1, 1, now, now, now, None, 0, 0, "normal", None, None, None,
        None, None, None,
    )  # fmt: skip
