"""What is asked of the desk: a plan drawn from a seed, and the client that carries it out and remembers each answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tests.chaos.site import Site
from worker.accounts.actor import Actor
from worker.db.base import new_id, utc_now
from worker.db.session import will_pass
from worker.errors import TooLate
from worker.joblogs import actions
from worker.joblogs.models import JobLog

CLIENT = Actor("chaos", via="api")
AGAIN_S = 0.2
AT_ONCE = 100
"""Requests under way, as many as the client's pool has connections: those that queue in the pool are asked about again
with each answer, and a thousand of them leave no time for the answers."""
ANSWERED_WITHIN_S = 300.0
"""After the last wish of a plan; then the scenario fails instead of asking for ever."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One job of the plan. Times are seconds from the start of the plan."""

    number: int
    at_s: float
    job: str
    args: dict[str, Any]
    due_in_s: float | None = None
    cancel_after_s: float | None = None
    repeated: bool = False
    """It goes through the API, twice, with one Idempotency-Key."""


@dataclass(frozen=True, slots=True)
class Mix:
    """How a plan is made up. Shares are of all jobs."""

    count: int
    burst: int
    per_s: float
    durations: tuple[tuple[int, float], ...] = ((20, 0.70), (100, 0.20), (300, 0.09), (3000, 0.01))
    """Milliseconds and their share."""
    fail_once: float = 0.05
    always_fail: float = 0.01
    die: float = 0.005
    cancelled: float = 0.02
    repeated: float = 0.05
    delayed: float = 0.02
    in_threads: float = 0.15
    in_processes: float = 0.002


def storm(count: int, per_s: float = 120.0, **shares: Any) -> Mix:
    """The mix of the big storms: a fifth at once, the rest at a steady rate."""
    return Mix(count, burst=count // 5, per_s=per_s, **shares)


def plan(seed: int, mix: Mix) -> list[Wish]:
    """The same seed and mix give the same wishes."""
    dice = random.Random(seed)
    return [_wish(dice, mix, number) for number in range(mix.count)]


def _wish(dice: random.Random, mix: Mix, number: int) -> Wish:
    at_s = max(0, number - mix.burst) / mix.per_s
    milliseconds = dice.choices([ms for ms, _ in mix.durations], [share for _, share in mix.durations])[0]
    name = _name(dice, mix)
    repeated = dice.random() < mix.repeated
    delayed = dice.random() < mix.delayed
    cancelled = dice.random() < mix.cancelled
    return Wish(
        number,
        at_s,
        name,
        {"ms": milliseconds},
        due_in_s=dice.uniform(1, 20) if delayed and not repeated else None,
        cancel_after_s=dice.expovariate(1 / 2.0) if cancelled else None,
        repeated=repeated,
    )


def _name(dice: random.Random, mix: Mix) -> str:
    kinds = {
        "fails_once": mix.fail_once,
        "always_fails": mix.always_fail,
        "dies": mix.die,
        "work_in_a_thread": mix.in_threads,
        "work_in_a_process": mix.in_processes,
    }
    left = 1.0 - sum(kinds.values())
    return dice.choices([*kinds, "work"], [*kinds.values(), left])[0]


@dataclass(slots=True)
class Cancel:
    """A wish to cancel and what was answered: `done`, `requested` or `too late`."""

    job_id: UUID
    asked_at: float
    answered_at: float
    answer: str


@dataclass(slots=True)
class Client:
    """Carries out a plan and keeps what it was told. It asks again until it is answered, as a good client does."""

    site: Site
    accepted: dict[int, UUID] = field(default_factory=dict)
    repeats: list[tuple[UUID, UUID]] = field(default_factory=list)
    """The two answers to one Idempotency-Key."""
    cancels: list[Cancel] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """Every HTTP status that a web process answered."""
    troubles: int = 0
    _http: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(timeout=15))
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def carry_out(self, wishes: Sequence[Wish]) -> None:
        """Returns when each wish was accepted and each cancel answered."""
        started = time.monotonic()
        in_order = sorted(wishes, key=lambda wish: wish.at_s)
        bound = asyncio.timeout(in_order[-1].at_s + ANSWERED_WITHIN_S)
        async with bound, asyncio.TaskGroup() as tasks:
            for wish in in_order:
                if (ahead := started + wish.at_s - time.monotonic()) > 0.005:
                    await asyncio.sleep(ahead)
                tasks.create_task(self._serve(wish))

    async def close(self) -> None:
        await self._http.aclose()

    async def enqueue(self, name: str, args: dict[str, Any], **options: Any) -> UUID:
        """Through an engine of this process. The id is chosen here, so that asking again makes no second job."""
        job_id = new_id()
        while True:
            try:
                return await self.site.engine.enqueue(name, args, job_id=job_id, **options)
            except (SQLAlchemyError, OSError) as error:
                await self._again(error)
            if await self._is_known(job_id):
                return job_id

    async def cancel(self, job_id: UUID) -> Cancel:
        """Through the first web process, if the site has one; else by the action itself."""
        asked_at = time.monotonic()
        while True:
            try:
                answer = await (self._cancel_by_api(job_id) if self.site.webs else self._cancel(job_id))
            except (SQLAlchemyError, OSError, httpx.TransportError) as error:
                await self._again(error)
            else:
                self.cancels.append(cancel := Cancel(job_id, asked_at, time.monotonic(), answer))
                return cancel

    async def retry(self, job_id: UUID) -> None:
        """Queues an ended job again, once: the epoch seen makes asking twice harmless."""
        while True:
            try:
                async with self.site.engine.database.transaction() as session:
                    seen = await actions.one(session, job_id)
                    if seen.status in ("failed", "cancelled"):
                        await actions.retry(session, job_id, actor=CLIENT, epoch=seen.epoch)
                    return
            except (SQLAlchemyError, OSError) as error:
                await self._again(error)

    async def call(self, method: str, path: str, body: Any = None, key: str | None = None) -> httpx.Response:
        """One API request, asked again while the desk answers that it cannot just now."""
        headers = {"Authorization": f"Bearer {self.site.token}"} | ({"Idempotency-Key": key} if key else {})
        while True:
            try:
                base = random.choice(self.site.webs).base
                async with self._turn:
                    answer = await self._http.request(method, base + path, json=body, headers=headers)
            except httpx.TransportError:
                self.troubles += 1
                await asyncio.sleep(AGAIN_S)
                continue
            self.statuses.append(answer.status_code)
            if answer.status_code < 500 and answer.status_code != 429:
                return answer
            self.troubles += 1
            await asyncio.sleep(AGAIN_S)

    async def _again(self, error: Exception) -> None:
        """Waits a little for trouble that passes; what does not pass is raised."""
        if isinstance(error, DBAPIError) and not will_pass(error):
            raise error
        self.troubles += 1
        await asyncio.sleep(AGAIN_S)

    async def _serve(self, wish: Wish) -> None:
        if wish.repeated and self.site.webs:
            job_id = await self._twice(wish)
        else:
            run_at = utc_now() + timedelta(seconds=wish.due_in_s) if wish.due_in_s else None
            job_id = await self.enqueue(wish.job, wish.args, run_at=run_at)
        self.accepted[wish.number] = job_id
        if wish.cancel_after_s is not None:
            await asyncio.sleep(wish.cancel_after_s)
            await self.cancel(job_id)

    async def _twice(self, wish: Wish) -> UUID:
        body, key = {"job_name": wish.job, "args": wish.args}, f"wish-{wish.number}"
        first, second = await asyncio.gather(
            *(self.call("POST", "/api/v1/jobs", body, key) for _ in range(2))
        )
        assert {first.status_code, second.status_code} <= {200, 202}, (first.text, second.text)
        ids = UUID(first.json()["job_id"]), UUID(second.json()["job_id"])
        self.repeats.append(ids)
        return ids[0]

    async def _cancel_by_api(self, job_id: UUID) -> str:
        answer = await self.call("POST", f"/api/v1/jobs/{job_id}/cancel")
        assert answer.status_code in (200, 409), answer.text
        return str(answer.json()["cancel"]) if answer.status_code == 200 else "too late"

    async def _cancel(self, job_id: UUID) -> str:
        try:
            async with self.site.engine.database.transaction() as session:
                return await actions.cancel(session, job_id, actor=CLIENT)
        except TooLate:
            return "too late"

    async def _is_known(self, job_id: UUID) -> bool:
        while True:
            try:
                async with self.site.engine.database.read() as connection:
                    found = await connection.scalar(sa.select(JobLog.id).where(JobLog.id == job_id))
                    return found is not None
            except (SQLAlchemyError, OSError):
                await asyncio.sleep(AGAIN_S)
