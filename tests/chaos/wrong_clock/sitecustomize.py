"""Read by every Python process that has this folder on its PYTHONPATH: its wall clock is wrong by CHAOS_CLOCK_S seconds."""

import datetime as dt
import os
import time

OFF_S = float(os.environ.get("CHAOS_CLOCK_S", "0"))
_time, _datetime = time.time, dt.datetime


class WrongDatetime(_datetime):
    @classmethod
    def now(cls, tz=None):
        return _datetime.now(tz) + dt.timedelta(seconds=OFF_S)

    @classmethod
    def utcnow(cls):
        return _datetime.utcnow() + dt.timedelta(seconds=OFF_S)


if OFF_S:
    time.time = lambda: _time() + OFF_S
    import worker.db.base  # before anybody else: `utc_now` reads this name at each call

    worker.db.base.datetime = WrongDatetime
