"""Ticks: at once when idle, ten a second under load."""

from __future__ import annotations

from webapp.live.pace import Pace


def ticks(pace: Pace, seconds: float, start: float = 1000.0) -> list[float]:
    """When ticks run while something changes all the time."""
    now, found = start, []
    while now < start + seconds:
        wait = pace.wait_s(now)
        if wait > 0:
            now += wait
            continue
        found.append(now - start)
        pace.ran(now)
    return found


def test_the_first_change_goes_at_once():
    assert Pace().wait_s(123.0) == 0


def test_a_jobs_few_steps_on_an_idle_desk_all_go_at_once():
    assert len(ticks(Pace(), 0.05)) >= 4


def test_under_load_there_are_ten_a_second():
    assert 95 <= len(ticks(Pace(), 10)) <= 106


def test_quiet_time_earns_the_right_to_be_quick_again():
    pace = Pace()
    ticks(pace, 5, start=0)
    assert pace.wait_s(5.0) > 0.01
    assert pace.wait_s(5.6) == 0
