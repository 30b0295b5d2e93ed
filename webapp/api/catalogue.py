"""/api/v1/job-catalogue: the jobs that workers offer, and their controls."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa
from litestar import Request, get, patch, post
from msgspec import UNSET, Meta, Struct, UnsetType
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.api import examples, strict
from webapp.api.jobs import database
from webapp.api.openapi import documented
from webapp.api.schema import Burst, Instant, PerSecond, Reason, Slots, exact, instant
from webapp.auth import actor, operator, viewer
from worker.errors import UnknownJob
from worker.jobs import actions
from worker.jobs.models import JobCatalogue
from worker.process.models import Worker

AnyRequest = Request[Any, Any, Any]


class Offer(Struct):
    """A job that workers advertise. `args_schema` is JSON Schema 2020-12 of its arguments."""

    name: str
    queue: str
    module: str
    doc: str
    parameters: list[Any]
    args_schema: dict[str, Any]
    max_retries: int
    timeout_s: float
    isolation: str
    on_lost: str
    paused_at: Instant | None
    paused_by: str | None
    pause_reason: str | None
    concurrency: Annotated[int | None, Meta(description="how many may run at once over all workers")]
    rate_limit: Annotated[float | None, Meta(description="starts a second over all workers")]
    rate_burst: Annotated[
        int | None,
        Meta(
            description="how many may start at once after a pause; null: what a tenth of a second brings, at least 1"
        ),
    ]
    advertised_at: Instant
    workers: Annotated[int, Meta(description="how many live workers can run it")]


class Offers(Struct):
    items: list[Offer]


class Pause(Struct):
    """Why, for the people who will wonder."""

    reason: Annotated[Reason, Meta(description="a text of at most 500 characters")] = ""


class Limit(Struct):
    """Limits over all workers; null takes one away, what is absent stays."""

    concurrency: Annotated[
        Slots | UnsetType | None, Meta(description="a whole number from 1 to 100000, or null")
    ] = UNSET
    rate_limit: Annotated[
        PerSecond | UnsetType | None,
        Meta(description="starts a second, from 1 a day (1/86400) to 10000, or null: 30 a minute is 0.5"),
    ] = UNSET
    rate_burst: Annotated[
        Burst | UnsetType | None, Meta(description="a whole number from 1 to 10000, or null")
    ] = UNSET


@get(
    "/job-catalogue",
    guards=[viewer],
    operation_class=documented(answer={"items": [examples.OFFER]}),
    summary="List the jobs that can run",
)
async def list_offers(request: AnyRequest) -> Offers:
    """Every job that a worker has offered, by name."""
    async with database(request).read() as connection:
        return Offers(await _offers(connection))


@get(
    "/job-catalogue/{name:str}",
    guards=[viewer],
    operation_class=documented(answer=examples.OFFER, problems=(404,)),
    summary="Read one of the jobs that can run",
)
async def read_offer(request: AnyRequest, name: str) -> Offer:
    """One job by its name."""
    return await _one(request, name)


@post(
    "/job-catalogue/{name:str}/pause",
    guards=[operator],
    status_code=200,
    operation_class=documented(
        body=Pause,
        example={"reason": "mail server down"},
        optional_body=True,
        answer=examples.OFFER,
        problems=(404,),
    ),
    summary="Pause a job",
)
async def pause_offer(request: AnyRequest, name: str) -> Offer:
    """No worker starts it until it is resumed; what runs goes on."""
    wish = await strict.body(request, Pause, optional=True)
    async with database(request).transaction() as session:
        await actions.pause_job(session, name, reason=wish.reason, actor=actor(request))
    return await _one(request, name)


@post(
    "/job-catalogue/{name:str}/resume",
    guards=[operator],
    status_code=200,
    operation_class=documented(answer=examples.OFFER, problems=(404,)),
    summary="Resume a job",
)
async def resume_offer(request: AnyRequest, name: str) -> Offer:
    """Workers start it again."""
    async with database(request).transaction() as session:
        await actions.resume_job(session, name, actor=actor(request))
    return await _one(request, name)


@patch(
    "/job-catalogue/{name:str}",
    guards=[operator],
    operation_class=documented(
        body=Limit, example={"concurrency": 4, "rate_limit": 0.5}, answer=examples.OFFER, problems=(404,)
    ),
    summary="Limit a job",
)
async def limit_offer(request: AnyRequest, name: str) -> Offer:
    """Sets or takes away limits: how many run at once, how many start in a second."""
    wish = await strict.body(request, Limit)
    wanted = {"concurrency": wish.concurrency, "rate": wish.rate_limit, "burst": wish.rate_burst}
    given: dict[str, Any] = {field: value for field, value in wanted.items() if value is not UNSET}
    async with database(request).transaction() as session:
        await actions.set_job_limit(session, name, actor=actor(request), **given)
    return await _one(request, name)


routes = [list_offers, read_offer, pause_offer, resume_offer, limit_offer]


async def _one(request: AnyRequest, name: str) -> Offer:
    async with database(request).read() as connection:
        found = await _offers(connection, name)
    if not found:
        raise UnknownJob(name)
    return found[0]


async def _offers(connection: AsyncConnection, name: str | None = None) -> list[Offer]:
    offers = sa.select(JobCatalogue.__table__).order_by(JobCatalogue.name)
    if name is not None:
        offers = offers.where(JobCatalogue.name == name)
    live = sa.select(Worker.jobs).where(Worker.ended_at.is_(None))
    able = [set(jobs) for jobs in await connection.scalars(live)]
    return [
        Offer(
            **{field: row[field] for field in _PLAIN},
            paused_at=instant(row["paused_at"]),
            advertised_at=exact(row["advertised_at"]),
            workers=sum(row["name"] in jobs for jobs in able),
        )
        for row in (await connection.execute(offers)).mappings()
    ]


_PLAIN = [
    field for field in Offer.__struct_fields__ if field not in ("paused_at", "advertised_at", "workers")
]
