"""A log line that cannot be written is lost, and nothing else with it."""

from __future__ import annotations

import asyncio
import errno
import io
import os

import pytest
import structlog

from worker.logs import log_to_stderr
from worker.process.clerk import Loop


class FullDisk(io.StringIO):
    """A file on a disk without space, until `full` is False."""

    full = True

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(text)


def test_a_full_disk_costs_its_lines_and_later_ones_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk()
    monkeypatch.setattr("sys.stderr", disk)
    log_to_stderr()
    log = structlog.get_logger("test")
    log.warning("lost")
    try:
        raise ValueError("told")
    except ValueError:
        log.exception("lost too")
    disk.full = False
    log.warning("kept")
    assert "lost" not in disk.getvalue()
    assert "kept" in disk.getvalue()


def test_a_pipe_that_nobody_reads_and_a_file_that_is_closed_cost_nothing_but_the_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, write = os.pipe()
    os.close(read)
    with io.TextIOWrapper(io.FileIO(write, "w"), write_through=True) as pipe:
        monkeypatch.setattr("sys.stderr", pipe)
        log_to_stderr()
        structlog.get_logger("test").info("into the void")
    structlog.get_logger("test").info("into a closed file")


async def test_a_loop_whose_error_cannot_be_logged_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", FullDisk())
    log_to_stderr()
    calls, twice = 0, asyncio.Event()

    async def fails() -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            twice.set()
        raise OSError(errno.ENOSPC, "the disk is full")

    loop = asyncio.create_task(Loop("test", 0.01, fails).run())
    heard = asyncio.create_task(twice.wait())
    await asyncio.wait({loop, heard}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
    assert not loop.done()
    assert twice.is_set()
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
