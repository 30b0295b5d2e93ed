"""A result counts from when it was said, not from when the process that said it has ended."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from worker.joblogs import isolation


async def test_a_result_is_told_while_its_process_still_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker may be killed meanwhile: what it knows by then must be in its journal."""
    ended, told = asyncio.Event(), []
    stdout = asyncio.StreamReader()
    stdout.feed_data(b'{"result": 7}\n')
    process = Mock(stdout=stdout, returncode=None, wait=ended.wait)
    process.stdin.drain = AsyncMock()
    monkeypatch.setattr(isolation, "_start", AsyncMock(return_value=process))
    monkeypatch.setattr(isolation, "_order", lambda *_: {})

    def answer(result: Any) -> str:
        told.append(result)
        return "noted"

    run = asyncio.create_task(isolation.run_in_process(Mock(), Mock(), {}, answer=answer))
    async with asyncio.timeout(20):
        while not told:
            await asyncio.sleep(0.01)
    assert not run.done()
    ended.set()
    assert await run == "noted"
    assert told == [7]
