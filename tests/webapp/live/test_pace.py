"""Ticks: soon when idle, ten a second on a busy desk."""

from __future__ import annotations

import pytest

from webapp.live.pace import Pace


def ticks(pace: Pace, seconds: float, cost_s: float) -> list[float]:
    """When ticks run while something changes all the time and each tick, with the sending, costs so much CPU."""
    now, cpu, found = 1000.0, 5.0, []
    while now < 1000 + seconds:
        now += pace.wait_s(now, cpu)
        found.append(now - 1000)
        pace.ran(now, cpu)
        cpu += cost_s
        now += cost_s
    return found


def test_the_first_change_after_a_silence_waits_for_what_follows_it():
    pace = Pace(gather_s=0.05, quiet_s=0.25)
    assert pace.wait_s(123.0, 4.0) == 0.05
    pace.ran(123.05, 4.0)
    assert pace.wait_s(123.1, 4.01) == 0
    assert pace.wait_s(123.4, 4.01) == 0.05


def test_a_page_that_asks_is_answered_at_once():
    assert Pace().wait_s(123.0, 4.0, asked=True) == 0


def test_what_a_job_does_after_its_first_step_is_shown_step_by_step():
    assert len(ticks(Pace(gather_s=0.05), 0.1, cost_s=0.001)) >= 3


@pytest.mark.parametrize(
    ("cost_s", "a_second"), [(0.001, 66), (0.01, 50), (0.02, 25), (0.05, 10), (0.09, 10)]
)
def test_ticks_take_half_of_the_time_and_come_ten_times_a_second_at_least(cost_s, a_second):
    assert a_second - 1 <= len(ticks(Pace(), 10, cost_s)) / 10 <= a_second + 2


def test_a_jobs_steps_do_not_wait_for_each_other_where_a_tick_costs_much():
    found = ticks(Pace(gather_s=0.05), 0.12, cost_s=0.02)
    assert found[:3] == pytest.approx([0.05, 0.07, 0.09])


def test_quiet_time_earns_the_right_to_be_quick_again():
    pace = Pace(saved_s=0.04)
    pace.ran(0.0, 0.0)
    pace.ran(0.1, 0.09)
    assert pace.wait_s(0.11, 0.14) > 0.05
    pace.ran(0.2, 0.14)
    pace.ran(1.2, 0.15)
    assert pace.wait_s(1.22, 0.18) == 0
