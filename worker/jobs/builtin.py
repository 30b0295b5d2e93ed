"""Jobs that every worker offers: the probe behind the desk's "test a worker" button."""

from __future__ import annotations

import platform

from worker.jobs.context import JobContext
from worker.jobs.job import job


@job(name="desk.probe", retry=0, timeout=30)
async def probe(ctx: JobContext, words: str = "hello") -> dict[str, str]:
    """Shows that jobs reach a worker and come back: reports progress, logs a line, returns what it was given.

    Args:
        words: come back as they are.
    """
    await ctx.progress(0.5, "halfway")
    await ctx.log(f"This worker runs Python {platform.python_version()} on {platform.system()}.")
    await ctx.progress(1, "done")
    return {"words": words, "python": platform.python_version()}
