"""Engines that lack one guard each: one edit of the source, and the scenario that must turn red."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("worker", "webapp", "templates", "static", "tests", "pyproject.toml", "README.md", "LICENSE")


@dataclass(frozen=True, slots=True)
class Mutant:
    """In `file`, `old` stands once and becomes `new`. `scenario` is what pytest is told to run."""

    name: str
    file: str
    old: str
    new: str
    scenario: str
    too: tuple[tuple[str, str, str], ...] = ()
    """Other guards of the same thing, which have to go with the first: file, old and new of each."""

    def applied_to(self, tree: Path) -> dict[Path, str]:
        """The edited sources, by their place in `tree`."""
        edited: dict[Path, str] = {}
        for file, old, new in [(self.file, self.old, self.new), *self.too]:
            source = edited.get(tree / file) or (tree / file).read_text(encoding="utf-8")
            assert source.count(old) == 1, f"{self.name}: {old!r} stands {source.count(old)} times in {file}"
            edited[tree / file] = source.replace(old, new)
        return edited


FROZEN = "tests/chaos/test_stall.py -k frozen"
BLOCKED = "tests/chaos/test_stall.py -k blocked"
DOORBELLS = "tests/chaos/test_doorbells.py"
CANCELS = "tests/chaos/test_cancel_races.py"
POISON = "tests/chaos/test_poison.py"
CLOCKS = "tests/chaos/test_clocks.py -k disagree"
SCHEDULES = "tests/chaos/test_schedules.py"
BROKER_BACK = "tests/chaos/test_broker_faults.py -k c4"

MUTANTS = (
    Mutant(
        "nobody rescues the jobs of the dead", "worker/joblogs/sweeper.py",
        "lost = lost.order_by(JobLog.id)", "lost = lost.where(sa.false()).order_by(JobLog.id)", FROZEN,
    ),
    Mutant(
        "a claim takes what others run", "worker/joblogs/claims.py",
        "        QUEUED,\n        JobLog.run_at <= now,",
        '        JobLog.status.in_(("queued", "running")),\n        JobLog.run_at <= now,', FROZEN,
        ((
            "worker/joblogs/claims.py",
            'JobLog.id.in_(ids), JobLog.status == "queued", ~declared_dead', "JobLog.id.in_(ids), ~declared_dead",
        ),),
    ),
    Mutant(
        "a finish is not fenced", "worker/joblogs/finishes.py",
        "job_logs.id = v.id AND job_logs.epoch = v.epoch AND job_logs.worker_id = :worker AND job_logs.status = 'running'",
        "job_logs.id = v.id AND :worker IS NOT NULL AND job_logs.status = 'running'", FROZEN,
    ),
    Mutant(
        "a rescue burns a retry", "worker/joblogs/sweeper.py",
        "job.epoch + 1, job.attempt - 1, None, None", "job.epoch + 1, job.attempt, None, None", FROZEN,
    ),
    Mutant(
        "the beat comes from the loop that runs jobs", "worker/process/supervisor.py",
        "for child in self.children() if child.ready]",
        "for child in self.children() if child.ready and time.monotonic() - child.held_at < 2]", BLOCKED,
    ),
    Mutant(
        "workers wait for doorbells and never look", "worker/queue/receiver.py",
        "found = await self.recorder.poll(limit, queues, rescued=rescued)", "found = []", DOORBELLS,
    ),
    Mutant(
        "a doorbell is answered before the claim is committed", "worker/queue/receiver.py",
        "        try:\n            answers = await",
        "        for delivery in deliveries:\n            await delivery.ack()\n        try:\n            answers = await", DOORBELLS,
    ),
    Mutant(
        "doorbells ring inside the transaction", "worker/db/session.py",
        '@event.listens_for(SyncSession, "after_commit")\ndef _announce',
        '@event.listens_for(SyncSession, "before_commit")\ndef _announce', DOORBELLS,
    ),
    Mutant(
        "each outage leaves a descriptor open", "worker/queue/nats.py",
        'log.info("Connected to the broker again"', '__import__("os").dup(2), log.info("Connected to the broker again"',
        "tests/chaos/test_leaks.py",
    ),
    Mutant(
        "an end is written without its event", "worker/joblogs/finishes.py",
        "emit(session, EVENT_OF[status], event_data(job), job.user_id)", "pass", DOORBELLS,
    ),
    Mutant(
        "who is silent for a moment is dead", "worker/joblogs/sweeper.py",
        "if now - since >= self.lease_s]", "if now - since > 0]", BLOCKED,
    ),
    Mutant(
        "the lease goes by the hour of whoever looks", "worker/joblogs/sweeper.py",
        "sa.select(Worker.id, Worker.beat).where", "sa.select(Worker.id, Worker.beat_at).where", CLOCKS,
        ((
            "worker/joblogs/sweeper.py", "dead = observations.stopped(beats, now)",
            'dead = [who for who, at in beats if (__import__("worker.db.base").db.base.utc_now() - at).total_seconds() > observations.lease_s]',
        ), ("worker/joblogs/sweeper.py", "chance, silent_since=seen[worker_id])", "chance)")),
    ),
    Mutant(
        "a due instant may be decided twice", "worker/schedules/clock.py",
        ".limit(BATCH)\n        .with_for_update(skip_locked=True)", ".limit(BATCH)", SCHEDULES,
        (
            (
                "worker/schedules/clock.py",
                'ScheduledJob.__table__.c.next_fire_at == sa.bindparam("b_was", type_=Time)',
                'sa.bindparam("b_was", type_=Time).is_not(None)',
            ),
            ("worker/db/migrations/versions/0002_schedules.py", '["scheduled_job_id", "fire_at"], unique=True', '["scheduled_job_id", "fire_at"], unique=False'),
        ),
    ),
    Mutant(
        "a running job is cancelled over its head", "worker/joblogs/actions.py",
        'if job.status == "running":\n        await _ask_to_stop', 'if job.status == "never":\n        await _ask_to_stop', CANCELS,
    ),
    Mutant(
        "a retry resets the epoch", "worker/joblogs/actions.py",
        "job.epoch, job.attempt, job.lost_count, job.died_alone = job.epoch + 1, 0, 0, 0",
        "job.epoch, job.attempt, job.lost_count, job.died_alone = 0, 0, 0, 0", CANCELS,
    ),
    Mutant(
        "poison stays in company", "worker/joblogs/losses.py",
        'return "alone" if losses >= ALONE_AFTER else "rescue"', 'return "rescue"', POISON,
    ),
    Mutant(
        "a release burns an attempt", "worker/joblogs/finishes.py",
        "attempt = job_logs.attempt - v.unburnt", "attempt = job_logs.attempt",
        "tests/worker/queue/test_receiver.py -k unburnt",
    ),
    Mutant(
        "a broker that comes back is not looked through", "worker/queue/nats_pulls.py",
        "            pull.ended()\n        self.set_up()", "            pull.ended()", BROKER_BACK,
        (("worker/queue/nats_pulls.py", '        if status in ("503", "404") or', '        if "Deleted" in status and'),),
    ),
    Mutant(
        "what a dead courier was sending stays with it", "worker/webhooks/claims.py",
        "LOST_BATCH: Final = 100", "LOST_BATCH: Final = 0", "tests/chaos/test_webhooks.py -k killed",
    ),
    Mutant(
        "a connection into the void is taken as sound", "worker/db/half_open.py",
        "if since is None or time.monotonic() - since < RESTED_S:", "if True:", "tests/worker/db/test_half_open.py",
    ),
    Mutant(
        "two workers take the last place of a limit", "worker/joblogs/limits.py",
        "        .order_by(table.name)\n        .with_for_update()", "        .order_by(table.name)",
        "tests/worker/process/test_limits_under_fire.py -k postgresql-nats",
    ),
    Mutant(
        "a full queue accepts", "worker/joblogs/enqueue.py",
        "    if depth >= limit:", "    if False:", "tests/worker/joblogs/test_enqueue.py -k depth",
    ),
    Mutant(
        "what a killed worker had finished runs again", "worker/joblogs/journal.py",
        "    left = _read(path)", "    left = {} and _read(path)", "tests/worker/joblogs/test_journal.py",
    ),
    Mutant(
        "a worker's list of what it holds is not read", "worker/joblogs/sweeper.py",
        "    return held_at - started_at > ADOPTION_TIME and", "    return False and",
        "tests/worker/joblogs/test_sweeper.py -k hold",
    ),
    Mutant(
        "a claim whose answer was lost is left lying", "worker/queue/receiver.py",
        "            if self.slots.free() > 0 and not self.slots.claiming:", "            if False:",
        "tests/worker/queue/test_receiver.py -k adopted",
    ),
    Mutant(
        "the database lets a job that ended change", "worker/db/migrations/versions/0001_first.py",
        "SELECT RAISE(ABORT, 'a terminal job does not change')", "SELECT 1",
        "tests/worker/joblogs/test_batches.py -k database_itself",
        ((
            "worker/db/migrations/versions/0001_first.py",
            "        RAISE EXCEPTION 'a terminal job does not change' USING ERRCODE = 'check_violation';", "        NULL;",
        ),),
    ),
    Mutant(
        "what was done once is done again", "worker/jobs/effects.py",
        "self.first = await self._find(self._session) is None", "self.first = await self._find(self._session) is not self",
        "tests/worker/jobs/test_context.py -k key_is_kept",
    ),
    Mutant(
        "a doubt is taken for a first time", "worker/jobs/effects.py",
        'if self._on_doubt != "run":', "if False:", "tests/worker/jobs/test_context.py -k doubt",
    ),
)  # fmt: skip
