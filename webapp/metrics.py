"""/metrics for Prometheus: read from the database at each scrape, so any web process gives the same figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from litestar import Request, Response, get
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeHistogramMetricFamily, GaugeMetricFamily, Metric

from webapp.auth import viewer
from webapp.queries.metrics import BUCKETS_S, Figures, figures
from worker.engine import Engine

BROKER_FIGURES = ("pending", "ack_pending", "redelivered")


@get("/metrics", guards=[viewer], include_in_schema=False)
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Everything at once, in the text format."""
    engine: Engine = request.app.state.engine
    async with engine.database.read() as connection:
        found = await figures(connection)
    return Response(exposition(found, await engine.doorbells.stats()), media_type=CONTENT_TYPE_LATEST)


routes = [metrics]


def exposition(found: Figures, broker: dict[str, Any]) -> bytes:
    """The figures in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(
        _Collected(
            [
                *_jobs(found),
                *_queues(found),
                *_workers(found),
                *_outbox(found),
                *_webhooks(found),
                *_broker(broker),
            ]
        )
    )
    return generate_latest(registry)


class _Collected:
    def __init__(self, families: list[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterable[Metric]:
        return self.families


def _jobs(found: Figures) -> Iterator[Metric]:
    jobs = GaugeMetricFamily(
        "m_jobs", "Jobs by name, queue and status.", labels=["job_name", "queue", "status"]
    )
    for labels, number in found.jobs.items():
        jobs.add_metric(labels, number)
    yield jobs
    paused = dict.fromkeys(found.paused_jobs, 1.0)
    yield _by("m_job_paused", "1 for a paused job.", "job_name", paused)
    text = "Failed jobs that nobody has resolved."
    yield _by("m_dead_letters", text, "job_name", found.dead_letters)
    for name, text, sums in (
        (
            "m_job_wait_seconds",
            "From due to started, of the jobs that ended in the last 5 minutes.",
            found.waits,
        ),
        (
            "m_job_run_seconds",
            "From started to ended, of the jobs that ended in the last 5 minutes.",
            found.runs,
        ),
    ):
        histogram = GaugeHistogramMetricFamily(name, text, labels=["queue"])
        for queue, sums_of_queue in sums.items():
            bounds = [*(f"{bound:g}" for bound in BUCKETS_S), "+Inf"]
            counts = [*sums_of_queue.at_most, sums_of_queue.count]
            histogram.add_metric([queue], list(zip(bounds, counts, strict=True)), sums_of_queue.total_s)
        yield histogram


def _queues(found: Figures) -> Iterator[Metric]:
    yield _by("m_queue_depth", "Jobs that wait in the queue for a slot.", "queue", found.depths)
    yield _by(
        "m_queue_oldest_age_seconds",
        "How long the job that waits longest has been due.",
        "queue",
        found.ages_s,
    )
    paused = dict.fromkeys(found.paused, 1.0)
    yield _by("m_queue_paused", "1 for a paused queue.", "queue", paused)
    yield _by("m_queue_limit", "How many of a limited queue may run at once.", "queue", found.limits)


def _workers(found: Figures) -> Iterator[Metric]:
    yield _by("m_workers", "Processes that live, by kind.", "kind", found.workers)
    yield GaugeMetricFamily("m_worker_slots", "Jobs that all workers together can run at once.", found.slots)
    yield GaugeMetricFamily("m_worker_busy", "Slots in use.", found.busy)
    text = "Results that came too late and were dropped, of the workers still on record."
    yield GaugeMetricFamily("m_stale_finishes", text, found.stale_finishes)


def _outbox(found: Figures) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "m_outbox_unpublished", "Outbox rows that the relay has not published.", found.unpublished
    )
    text = "Age of the oldest outbox row that is not published."
    yield GaugeMetricFamily("m_outbox_lag_seconds", text, found.outbox_lag_s)


def _webhooks(found: Figures) -> Iterator[Metric]:
    text = "Attempts of the last 5 minutes, by webhook and outcome."
    attempts = GaugeMetricFamily("m_webhook_attempts", text, labels=["webhook", "outcome"])
    for labels, number in found.deliveries.attempts.items():
        attempts.add_metric(labels, number)
    yield attempts
    text = "Deliveries that wait for their first attempt or the next one."
    yield _by("m_webhook_waiting", text, "webhook", found.deliveries.waiting)
    text = "1 for a webhook that sends, 0 for one that is switched off."
    yield _by("m_webhook_enabled", text, "webhook", found.deliveries.enabled)


def _broker(stats: dict[str, Any]) -> Iterator[Metric]:
    connected = GaugeMetricFamily(
        "m_broker_connected", "Whether this process reaches the broker.", labels=["backend"]
    )
    connected.add_metric([str(stats.get("backend", "none"))], float(bool(stats.get("connected"))))
    yield connected
    for figure in BROKER_FIGURES:
        lane = GaugeMetricFamily(f"m_broker_{figure}", f"Doorbells: {figure}.", labels=["queue", "lane"])
        for consumer in stats.get("consumers", ()):
            lane.add_metric([consumer["queue"], consumer["lane"]], float(consumer.get(figure, 0)))
        yield lane


def _by(name: str, text: str, label: str, values: dict[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
