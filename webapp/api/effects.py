"""/api/v1/jobs/{id}/effects: what `ctx.once` has marked, and what a person or program knows of a doubt."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Request, get, post
from msgspec import Meta, Struct

from webapp.api import examples, strict
from webapp.api.jobs import database
from webapp.api.openapi import documented
from webapp.api.schema import Instant, exact
from webapp.auth import actor, operator, viewer
from worker.joblogs import actions, effects

AnyRequest = Request[Any, Any, Any]


class EffectState(Struct):
    """A key that the job spent."""

    key: str
    state: Annotated[str, Meta(description="`done`, or `started`: in doubt while the job does not run")]
    value: Annotated[Any, Meta(description="what the effect gave, as the job kept it")]
    epoch: int
    at: Instant


class EffectStates(Struct):
    items: list[EffectState]


class Settlement(Struct):
    """What became of an effect in doubt."""

    key: Annotated[str, Meta(min_length=1, max_length=180, description="a text of 1 to 180 characters")]
    happened: Annotated[
        bool, Meta(description="true (it counts as done) or false (the next attempt does it)")
    ]


@get(
    "/jobs/{job_id:uuid}/effects",
    guards=[viewer],
    operation_class=documented(answer={"items": [examples.EFFECT]}, problems=(404,)),
    summary="List a job's effects",
)
async def list_effects(request: AnyRequest, job_id: UUID) -> EffectStates:
    """The keys that `ctx.once` spent, those in doubt first."""
    return await _effects(request, job_id)


@post(
    "/jobs/{job_id:uuid}/effects",
    guards=[operator],
    status_code=200,
    operation_class=documented(
        body=Settlement,
        example={"key": "charge", "happened": True},
        answer={"items": [examples.EFFECT]},
        problems=(404, 409),
    ),
    summary="Settle an effect in doubt",
)
async def settle_effect(request: AnyRequest, job_id: UUID) -> EffectStates:
    """Says whether an effect happened whose execution died before it could. 409 while the job runs."""
    wish = await strict.body(request, Settlement)
    async with database(request).transaction() as session:
        await effects.settle(session, job_id, wish.key, happened=wish.happened, actor=actor(request))
    return await _effects(request, job_id)


routes = [list_effects, settle_effect]


async def _effects(request: AnyRequest, job_id: UUID) -> EffectStates:
    async with database(request).session() as session:
        await actions.one(session, job_id)
        found = await effects.effects_of(session, job_id)
    return EffectStates(
        [EffectState(one.key, one.state, one.value, one.epoch, exact(one.at)) for one in found]
    )
