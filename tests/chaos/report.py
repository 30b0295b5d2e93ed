"""The table of results: what a scenario measured, and what was promised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos import figures
from tests.chaos.auditor import Evidence, Finding
from tests.chaos.nemesis import Strike


@dataclass(frozen=True, slots=True)
class Report:
    scenario: str
    record: Callable[[str, object], None]

    def say(self, figure: str, value: object, promised: object = "") -> None:
        """One line of the table."""
        self.record("chaos", [self.scenario, figure, str(value), str(promised)])

    def storm(
        self, evidence: Evidence, findings: Sequence[Finding], strikes: Sequence[Strike]
    ) -> dict[str, Any]:
        """The lines that every storm has; answers the figures."""
        cut = figures.cuts(evidence.executions, strikes)
        again = [each.again_s for each in cut if each.again_s is not None]
        died, doubles = figures.deaths(evidence, strikes), figures.double_effects(evidence)
        found: dict[str, Any] = {
            "jobs": len(evidence.jobs),
            "cut": len(cut),
            "deaths": died,
            "p50": figures.quantile(again, 0.50),
            "p95": figures.quantile(again, 0.95),
            "doubles": doubles,
        }
        kinds = [strike.kind for strike in strikes]
        struck = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
        self.say("jobs", found["jobs"])
        self.say("strikes", struck)
        self.say("executions cut in mid-run", len(cut))
        self.say("lost", figures.lost(evidence), 0)
        self.say("other than one end", figures.not_one_end(findings), 0)
        self.say("same (job, epoch) executed twice", figures.executed_twice(findings), 0)
        self.say("innocent jobs failed as poison", figures.innocent_poison(evidence), 0)
        self.say(
            "double effects per dead child", f"{doubles} / {died} = {doubles / max(1, died):.3f}", "<= 0.1"
        )
        self.say("killed -> running again, p50", figures.seconds(found["p50"]), "<= 1 s")
        self.say("killed -> running again, p95", figures.seconds(found["p95"]), "<= 3 s")
        self.say("stale finishes, dropped and counted", figures.stale_finishes(evidence))
        return found


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns, a blank line between scenarios."""
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines, before = [], rows[0][0]
    for row in rows:
        if row[0] != before:
            lines.append("")
        lines.append("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())
        before = row[0]
    return lines
