"""How soon an edit of a schedule holds for all of three workers, none of which is restarted.

    python -m tests.bench.schedule_edits [edits] [sqlite|postgresql]

Edits over the API make a schedule due each second and stop it again. Prints how long after its first instant a started one fired
(p50, p95, longest), and how long after the answer to a stop the last one fired: at most 0 means never.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from e2e.stage import make_desk
from tests.desk import Desk
from tests.servers.nats import NatsServer
from tests.servers.postgres import PostgresServer

NEVER, EACH_SECOND = "0 0 1 1 *", "* * * * * *"
WORKERS = 3


def main(edits: int, database: str) -> None:
    with tempfile.TemporaryDirectory(prefix="m-edits-") as folder:
        Path(folder).chmod(0o755)
        nats, postgres = NatsServer(), PostgresServer()
        nats.start()
        url = f"sqlite+aiosqlite:///{folder}/desk.db"
        if database == "postgresql":
            postgres.start()
            url = postgres.database()
        try:
            with make_desk(Path(folder), url, nats.url, "edits") as desk:
                desk.upgrade()
                desk.web()
                for _ in range(WORKERS):
                    desk.worker()
                while len(call(desk, "GET", "/api/v1/workers")["items"]) < 2 * WORKERS:  # each has a clerk
                    time.sleep(0.2)
                report(*measure(desk, edits))
        finally:
            nats.close()
            if database == "postgresql":
                postgres.close()


def measure(desk: Desk, edits: int) -> tuple[list[float], list[float]]:
    started, stopped = [], []
    wish = {"name": "edited", "function": "greet", "cron_expression": NEVER, "overlap": "allow"}
    schedule = "/api/v1/schedules/" + call(desk, "POST", "/api/v1/schedules", wish)["schedule_id"]
    for _ in range(edits):
        time.sleep(random.random())
        before = {fire["fire_at"] for fire in fires(desk, schedule)}
        edited = call(desk, "PATCH", schedule, {"cron_expression": EACH_SECOND})
        first = edited["next_run"]
        while not (new := [fire for fire in fires(desk, schedule) if fire["fire_at"] not in before]):
            time.sleep(0.02)
        assert min(fire["fire_at"] for fire in new) == first
        started.append(fired_at(desk, new[-1]) - at(first))
        time.sleep(random.random())
        call(desk, "PATCH", schedule, {"cron_expression": NEVER})
        answered = time.time()
        time.sleep(2)
        stopped.append(fired_at(desk, fires(desk, schedule)[0]) - answered)
    return started, stopped


def fires(desk: Desk, schedule: str) -> list[dict[str, Any]]:
    """Newest first."""
    found: list[dict[str, Any]] = call(desk, "GET", f"{schedule}/fires?limit=20")["items"]
    return found


def call(desk: Desk, method: str, path: str, body: Any = None) -> Any:
    status, answer = desk.call(method, path, body)[:2]
    assert status < 300, (status, answer)
    return answer


def fired_at(desk: Desk, fire: dict[str, Any]) -> float:
    """When its job was enqueued: in the transaction that notes the fire."""
    return at(call(desk, "GET", f"/api/v1/jobs/{fire['job_id']}")["enqueued_at"])


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def report(started: list[float], stopped: list[float]) -> None:
    p95 = statistics.quantiles(started, n=20)[18]
    print(f"{len(started)} edits that start, seconds from the first instant to its fire: "
          f"p50 {statistics.median(started):.2f}, p95 {p95:.2f}, longest {max(started):.2f}")  # fmt: skip
    print(
        f"{len(stopped)} edits that stop, seconds from the answer to the last fire: longest {max(stopped):.2f}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40, sys.argv[2] if len(sys.argv) > 2 else "postgresql")
