"""A schedule in one sentence that a person would say."""

from __future__ import annotations

import re
from datetime import datetime

from cronsim import CronSim

from worker.schedules.cron import EVERY, UNITS, Rule

NOUNS = {"s": "second", "m": "minute", "h": "hour", "d": "day"}
ANY_DATE = datetime(2026, 1, 1)  # noqa: DTZ001 - only the words are wanted
COUNTED = {"third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9}
STEPS = re.compile(
    r"[Ee]very (third|fourth|fifth|sixth|seventh|eighth|ninth|\d+(?:st|nd|rd|th)) (second|minute|hour)"
)


def sentence(rule: Rule) -> str:
    """`At 09:00 on Monday through Friday, Europe/Warsaw time`; `Every 30 seconds`."""
    found = EVERY.fullmatch(rule.expression)
    if found is not None:
        return _interval(int(found[1]), found[2].lower())
    text = CronSim(" ".join(rule.fields), ANY_DATE).explain()
    return f"{_plainer(text)}, {_zone(rule.time_zone)}"


def _interval(count: int, unit: str) -> str:
    seconds = count * UNITS[unit]
    for size, larger in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds % size == 0:
            count, unit = seconds // size, larger
            break
    return f"Every {NOUNS[unit]}" if count == 1 else f"Every {count} {NOUNS[unit]}s"


def _plainer(text: str) -> str:
    """`Every fifth minute of every hour` is what people call every 5 minutes."""
    text = STEPS.sub(_counted, text)
    text = re.sub(r"^(Every \d+ (?:minutes|seconds)) of every (?:hour|minute)", r"\1", text)
    text = text.replace("At minute 0 past every ", "On the hour, every ")
    return text.replace("On the hour, every hour", "Every hour")


def _counted(found: re.Match[str]) -> str:
    word = found[1]
    count = COUNTED.get(word) or int(re.sub(r"\D", "", word))
    every = "Every" if found[0].startswith("E") else "every"
    return f"{every} {count} {found[2]}s"


def _zone(name: str) -> str:
    return "UTC" if name in ("UTC", "Etc/UTC") else f"{name} time"
