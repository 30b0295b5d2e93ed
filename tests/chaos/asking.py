"""A client that asks the API for jobs at a steady pace and notes each answer, without ever asking again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from tests.chaos.figures import quantile
from tests.chaos.site import FULL, Site

Test = TypeVar("Test")
CLIENTS = 10
MOST_LATE_S = 10.0


def in_full(test: Test) -> Test | None:
    """A scenario that only `./m chaos` runs; what it shows is shown in small by another test of the short set."""
    return test if FULL else None


@dataclass(slots=True)
class Asked:
    """What was answered: status by status, how long it took, which jobs are promised."""

    statuses: Counter[int] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    unanswered: int = 0

    @property
    def p99_ms(self) -> float:
        return 1000 * (quantile(self.took_s, 0.99) or 0.0)

    def __str__(self) -> str:
        return ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))


async def ask(site: Site, seconds: float, per_s: float, **body: Any) -> Asked:
    """Enqueues through the first web process for so long, as ten clients: on a busy machine they ask more slowly."""
    asked, started, clients = Asked(), time.monotonic(), asyncio.Semaphore(CLIENTS)
    headers = {"Authorization": f"Bearer {await site.do(lambda: site.token)}"}
    wish = {"job_name": "work", "args": {"ms": 20}} | body
    async with (
        httpx.AsyncClient(base_url=site.webs[0].base, headers=headers, timeout=60) as client,
        asyncio.TaskGroup() as tasks,
    ):
        for number in range(int(seconds * per_s)):
            await asyncio.sleep(max(0.0, started + number / per_s - time.monotonic()))
            await clients.acquire()
            if time.monotonic() - started > seconds + MOST_LATE_S:
                break
            tasks.create_task(_once(client, wish, asked, clients))
    return asked


async def _once(
    client: httpx.AsyncClient, wish: dict[str, Any], asked: Asked, clients: asyncio.Semaphore
) -> None:
    began = time.monotonic()
    try:
        answer = await client.post("/api/v1/jobs", json=wish)
    except httpx.TransportError:
        asked.unanswered += 1
        return
    finally:
        clients.release()
    asked.took_s.append(time.monotonic() - began)
    asked.statuses[answer.status_code] += 1
    if answer.status_code in (200, 202):
        asked.accepted.append(answer.json()["job_id"])
