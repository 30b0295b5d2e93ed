"""Other job systems doing the same no-op job, each in a module of its own; read by `tests.bench.drain`.

A module has `fill(n)`, which hands in n jobs as fast as the system takes them from one caller, `send(sent_ns)` for one job,
and `WORKER`, the arguments that start one worker process with ten slots. It runs in an environment that has the system installed.
"""

from __future__ import annotations

import os

REDIS = os.environ.get("BENCH_REDIS_URL", "")
NATS = os.environ.get("BENCH_NATS_URL", "")
SLOTS = 10
