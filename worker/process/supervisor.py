"""`m worker`: the parent of the worker children and the clerk. It starts, watches, replaces and stops them; it runs no job."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from worker.db.base import new_id
from worker.errors import BrokerRequired
from worker.logs import log_to_stderr
from worker.process import platform
from worker.process.children import Child, Place
from worker.process.entry import CONFIGURATION, FAILED, Orders
from worker.process.fork_server import ForkServer, ForkServerGone
from worker.process.identity import memory_mb
from worker.process.presence import Beat
from worker.process.pulse import Pulse
from worker.queue.lanes import parse_priorities, parse_queues
from worker.settings import Settings

log = structlog.get_logger(__name__)

TICK_S = 0.25
DRAIN_S = 25.0
KILL_AFTER_S = 31.0
"""From the request to stop: the child drains 25 s and has a few more to write what it knows."""
ENDED_ITSELF = (FAILED, CONFIGURATION)
"""Codes of a child that gave up by itself: before it was ready it held nothing that could be taken back."""
IMPATIENT_AFTER_S = 1.0
LATELY = 32
"""So many children that have ended are remembered, for wishes that come too late for them."""
NO_START_S = 2.0
"""Where the system refuses a process, it is asked again this soon."""


def run_supervisor(
    settings: Settings,
    processes: int | None = None,
    concurrency: int | None = None,
    queues: str = "",
    priorities: str = "0-9",
    max_memory_mb: float | None = None,
    max_jobs: int | None = None,
) -> int:
    """Runs workers until SIGTERM or Ctrl-C and answers the exit code. SIGHUP replaces every child, one after the other.

    Args:
        processes, concurrency: default `settings`.
        queues: `a,b:2`; empty means every queue.
        max_memory_mb, max_jobs: a child beyond either finishes what it runs and is replaced.

    Raises:
        BrokerRequired: there is neither NATS_URL nor REDIS_URL.
        ValueError: `queues` or `priorities` is not well formed.
    """
    if settings.transport == "memory":
        raise BrokerRequired
    parse_priorities(priorities)
    if queues:
        parse_queues(queues)
    log_to_stderr()
    plan = Plan(
        processes or settings.worker_processes,
        concurrency or settings.worker_concurrency,
        queues,
        priorities,
        max_memory_mb,
        max_jobs,
    )
    return Supervisor(settings, plan).run()


@dataclass(frozen=True, slots=True)
class Plan:
    """What the operator asked for."""

    processes: int
    concurrency: int
    queues: str
    priorities: str
    max_memory_mb: float | None = None
    max_jobs: int | None = None


class Supervisor:
    """The main thread: one queue of events, handled one after the other."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self.id = new_id()
        self.settings = settings
        self.plan = plan
        self.places = [Place(f"worker {n}", "worker.process.child") for n in range(1, plan.processes + 1)]
        self.places.append(Place("clerk", "worker.process.clerk"))
        self.leaving: list[Child] = []
        self.ended: deque[Child] = deque(maxlen=LATELY)
        self.rolling: list[Place] = []
        self.stopping_since: float | None = None
        self.code = 0
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._forks: ForkServer | None = None
        self._pulse = Pulse(settings, self._beats, self._wished, self._pulse_ended)

    def run(self) -> int:
        self._on_signals()
        self._pulse.start()
        log.info(
            "The supervisor has started",
            pid=os.getpid(),
            processes=self.plan.processes,
            slots=self.plan.concurrency,
        )
        try:
            while self.stopping_since is None or self.children():
                self._tick(time.monotonic())
                self._hear()
        finally:
            for child in self.children():
                platform.kill_tree(child.process)
            if self._forks is not None:
                self._forks.close()
            self._pulse.stop()
        log.info("The supervisor has stopped", code=self.code)
        return self.code

    def _hear(self) -> None:
        """All there is to hear, so that nothing is decided by what was true before a start that took its time."""
        with contextlib.suppress(queue.Empty):
            self._events.get(timeout=TICK_S)()
            while True:
                self._events.get_nowait()()

    def children(self) -> list[Child]:
        return [place.child for place in self.places if place.child] + self.leaving

    # Every quarter of a second

    def _tick(self, now: float) -> None:
        for child in self.children():
            if child.kill_at is not None and now >= child.kill_at:
                log.warning("A child did not stop and is killed", pid=child.process.pid, why=child.leaving)
                child.kill_at = None
                platform.kill_now(child.process)
        for child in self.leaving:
            if child.patient:
                self._hold_to_deadlines(child, now)
        for place in self.places:
            self._look_after(place, now)
        self._roll()

    def _hold_to_deadlines(self, child: Child, now: float) -> None:
        """Who leaves in its own time has as much as its jobs have, and none when it holds nothing and does not react."""
        if child.silent(now):
            self._pulse.look_up(child.worker_id, functools.partial(self._learned, child))
        if overdue := child.past_deadline(now):
            child.overdue = overdue
            self._hurry(child, f"{len(overdue)} job(s) do not stop")
        elif child.hangs(now, KILL_AFTER_S):
            self._hurry(child, f"it does not end ({child.leaving})")

    def _look_after(self, place: Place, now: float) -> None:
        child = place.child
        if child is None:
            if self.stopping_since is None and not place.drained and now >= place.start_at:
                self._fill(place, now)
            return
        place.worked = place.worked or child.ready
        if child.leaving:
            return
        if child.silent(now):
            self._pulse.look_up(child.worker_id, functools.partial(self._learned, child))
        if overdue := child.past_deadline(now):
            child.overdue = overdue
            self._replace(place, f"{len(overdue)} job(s) do not stop")
        elif self.plan.max_jobs and child.finished >= self.plan.max_jobs:
            self._replace(place, f"it has run {child.finished} jobs", patient=True)
        elif self.plan.max_memory_mb and (memory_mb(child.process.pid) or 0) > self.plan.max_memory_mb:
            self._replace(place, f"it uses more than {self.plan.max_memory_mb:g} MB", patient=True)

    def _roll(self) -> None:
        """A rolling restart: the next child goes when the one before has been replaced."""
        wanted = [place.child for place in self.places if not place.drained]
        if not self.rolling or not all(child is not None and child.ready for child in wanted):
            return
        place = self.rolling.pop(0)
        self._replace(place, "rolling restart")

    # Starting and stopping one child

    def _fill(self, place: Place, now: float) -> None:
        try:
            place.child = self._spawn(place)
        except OSError as error:
            log.warning("A child could not be started", child=place.name, error=str(error))
            place.start_at = now + NO_START_S

    def _spawn(self, place: Place) -> Child:
        orders = Orders(
            str(new_id()),
            str(self.id),
            os.getpid(),
            self.plan.concurrency,
            self.plan.queues,
            self.plan.priorities,
            self.plan.max_memory_mb,
            self.plan.max_jobs,
        )
        process = self._begin(place.module, orders.words())
        child = Child(orders.id, place.module, process, time.monotonic(), place.name)
        threading.Thread(target=self._read, args=(child,), daemon=True).start()
        threading.Thread(target=self._wait, args=(child,), daemon=True).start()
        log.info("A child has started", child=place.name, pid=process.pid, worker_id=str(orders.id))
        return child

    def _begin(self, module: str, words: str) -> platform.Running:
        """From the fork server where there can be one; else, and where it does not fork, as a program of its own."""
        if platform.LINUX and not (self._forks and self._forks.unfit):
            try:
                if self._forks is None or not self._forks.forks:
                    self._forks = ForkServer()
                return self._forks.fork(module, words)
            except ForkServerGone:
                log.warning("The fork server does not fork; the child is started without it")
        return platform.spawn(
            [sys.executable, "-m", module, words], output=subprocess.PIPE, errors=sys.stderr
        )

    def _replace(self, place: Place, why: str, *, patient: bool = False) -> None:
        """Asks the place's child to leave; its successor starts at once, so that no slot is missing meanwhile."""
        child = place.child
        if child is None:
            return
        log.info("A child is replaced", child=place.name, pid=child.process.pid, why=why)
        self._ask_to_leave(child, why, patient=patient)
        self.leaving.append(child)
        place.child, place.start_at = None, 0.0

    def _ask_to_leave(self, child: Child, why: str, *, patient: bool = False) -> None:
        child.leaving, child.left_at = child.leaving or why, child.left_at or time.monotonic()
        child.patient = patient and hasattr(signal, "SIGUSR1")
        if child.patient:
            child.process.send_signal(signal.SIGUSR1)
            return
        child.kill_at = child.kill_at or time.monotonic() + KILL_AFTER_S
        platform.ask_to_stop(child.process)

    def _hurry(self, child: Child, why: str) -> None:
        log.warning("A child that may take its time to leave is hurried", pid=child.process.pid, why=why)
        child.leaving = why
        self._ask_to_leave(child, why)

    # What happens

    def _ended(self, child: Child, code: int) -> None:
        now = time.monotonic()
        platform.kill_now(child.process)  # what it left in its session goes with it
        self.ended.append(child)
        if child in self.leaving:
            self.leaving.remove(child)
        place = next((p for p in self.places if p.child is child), None)
        unasked = not child.leaving or (child.patient and code != 0)
        reason = f"its process ended with {_words(code)}" if unasked else child.leaving
        if child.ready or code not in ENDED_ITSELF:
            overdue = child.overdue | child.past_deadline(now)  # also of jobs whose time ended while it left
            self._pulse.bury(child.worker_id, reason, lost=unasked, overdue=overdue)
        if place is None or self.stopping_since is not None:
            log.info("A child has ended", pid=child.process.pid, code=code, why=reason)
            if place is not None:
                place.child = None
            return
        place.child = None
        if code == CONFIGURATION and not place.worked:  # it will not get better by waiting
            self._refuse(child.failed or reason)
            return
        pause = place.died(child, now)
        if pause and not child.ready:  # what it was forked from may be what does not fit any more
            self._load_anew()
        log.warning(
            "A child died", child=place.name, pid=child.process.pid, code=_words(code), restart_in_s=pause
        )

    def _refuse(self, why: str) -> None:
        log.error("The worker cannot start as configured", why=why)
        self.code = CONFIGURATION
        self._stop()

    def _stop(self) -> None:
        """Asks all to drain; asked again after a second, it waits no longer."""
        now = time.monotonic()
        if self.stopping_since is not None:
            if now - self.stopping_since > IMPATIENT_AFTER_S:
                for child in self.children():
                    child.kill_at = now
            return
        self.stopping_since = now
        log.info("Draining", running=sum(child.busy for child in self.children()), at_most_s=DRAIN_S)
        for child in self.children():
            child.kill_at = None
            self._ask_to_leave(child, "the worker was stopped")

    def _end_without_beats(self) -> None:
        """Ends before others count a lease without a beat and run the jobs a second time; whoever started it starts it again."""
        self.code = self.code or FAILED
        if self.stopping_since is None:
            self._stop()
        soon = time.monotonic() + self.settings.lease_s / 2
        for child in self.children():
            child.kill_at = min(soon, child.kill_at or soon)

    def _restart_all(self) -> None:
        log.info("Rolling restart")
        self._load_anew()
        self.rolling = [place for place in self.places if not place.drained]
        for place in self.places:
            place.drained = False

    def _load_anew(self) -> None:
        """The next children run whatever code is installed by now."""
        if self._forks is not None and self._forks.forks:
            self._forks.retire()

    def _wish(self, worker_id: UUID, wish: str) -> None:
        """A beat brings it again and again, a burial once more; it counts once. If the child was on its way out, or died, it is for its successor."""
        known = [*self.children(), *self.ended]
        child = next((each for each in known if each.worker_id == worker_id), None)
        if child is None or child.wished == wish or self.stopping_since is not None:
            return
        child.wished = wish
        place = next(each for each in self.places if each.name == child.place)
        if wish == "ended":
            why = "others had declared it dead"
            if place.child is child:
                self._replace(place, why)
            elif child.patient:
                self._hurry(child, why)
            return
        if wish == "restart":
            self._load_anew()
        place.drained = wish == "drain"
        if place.child is not None and not place.child.leaving:
            self._replace(place, f"an operator asked for a {wish}", patient=True)

    # From other threads, and from signal handlers: SimpleQueue.put may be called in both

    def _on_signals(self) -> None:
        for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
            self._on_signal(name, self._stop)
        self._on_signal("SIGHUP", self._restart_all)

    def _on_signal(self, name: str, handler: Callable[[], None]) -> None:
        if number := getattr(signal, name, None):
            signal.signal(number, lambda *_: self._events.put(handler))

    def _read(self, child: Child) -> None:
        assert child.process.stdout is not None
        with child.process.stdout as said:
            for words in said:
                with contextlib.suppress(ValueError):
                    self._events.put(functools.partial(child.heard, json.loads(words)))

    def _wait(self, child: Child) -> None:
        code = child.process.wait()
        self._events.put(lambda: self._ended(child, code))

    def _wished(self, worker_id: UUID, wish: str) -> None:
        self._events.put(lambda: self._wish(worker_id, wish))

    def _pulse_ended(self) -> None:
        self._events.put(self._end_without_beats)

    def _learned(self, child: Child, held: list[list[Any]]) -> None:
        self._events.put(functools.partial(child.learned, held))

    def _beats(self) -> list[Beat]:
        return [child.beat() for child in self.children() if child.ready]


def _words(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
