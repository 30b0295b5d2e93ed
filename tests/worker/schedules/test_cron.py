"""Which instants an expression means: against an oracle that looks at every minute, and a table of daylight saving."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.chaos.site import FULL
from tests.worker.schedules.oracle import Spec, Window, utc
from worker.errors import Invalid
from worker.schedules import zones
from worker.schedules.cron import Rule, checked_expression, checked_zone
from worker.schedules.words import sentence

ZONES = (
    "Europe/Warsaw", "Europe/London", "Europe/Dublin", "Europe/Moscow", "Europe/Chisinau", "Atlantic/Azores",
    "America/New_York", "America/Los_Angeles", "America/St_Johns", "America/Sao_Paulo", "America/Asuncion",
    "America/Santiago", "America/Havana", "America/Nuuk", "America/Mexico_City", "Africa/Casablanca", "Africa/Cairo",
    "Asia/Beirut", "Asia/Amman", "Asia/Tehran", "Asia/Kolkata", "Asia/Kathmandu", "Asia/Gaza", "Antarctica/Troll",
    "Australia/Lord_Howe", "Australia/Adelaide", "Pacific/Auckland", "Pacific/Chatham", "Pacific/Apia", "UTC",
)  # fmt: skip
YEARS = range(2018, 2024)
"""Six years in which Iran, Mexico, Paraguay, Brazil, Jordan and Samoa still changed their clocks."""

specs = st.builds(
    Spec,
    minute=st.none() | st.frozensets(st.sampled_from((0, 1, 15, 30, 45, 59)), min_size=1, max_size=3),
    hour=st.none() | st.frozensets(st.sampled_from((0, 1, 2, 3, 12, 23)), min_size=1, max_size=4) | st.just(frozenset(range(24))),
    day=st.none() | st.frozensets(st.integers(1, 28), min_size=1, max_size=10),
    month=st.none() | st.frozensets(st.integers(1, 12), min_size=1, max_size=11),
    weekday=st.none() | st.frozensets(st.integers(0, 6), min_size=1, max_size=6),
)  # fmt: skip


def test_there_are_thirty_zones() -> None:
    assert len(set(ZONES)) == 30


@lru_cache(maxsize=64)
def window(zone: str, start: datetime) -> Window:
    return Window(zone, start, start + timedelta(days=3))


@st.composite
def places(draw: st.DrawFn) -> tuple[str, datetime]:
    """A zone and three days of its six years: half of them around a change of its clocks."""
    zone = draw(st.sampled_from(ZONES))
    changes = [change.at for year in YEARS for change in zones.changes(zone, year)]
    if changes and draw(st.booleans()):
        return zone, draw(st.sampled_from(changes)) - timedelta(days=1, hours=12)
    return zone, utc(draw(st.sampled_from(YEARS)), 1, 1) + timedelta(days=draw(st.integers(0, 364)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(places(), st.lists(specs, min_size=4, max_size=12))
def test_the_instants_are_those_of_the_oracle(place: tuple[str, datetime], wanted: list[Spec]) -> None:
    zone, start = place
    looked_at = window(zone, start)
    for spec in wanted:
        rule = Rule(checked_expression(spec.expression()), zone)
        due = looked_at.due(spec)
        assert rule.between(start, looked_at.end, 10_000) == due, (spec.expression(), zone)
        assert backward(rule, looked_at) == due[-50:], (spec.expression(), zone)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    places(),
    st.lists(specs, min_size=2, max_size=6),
    st.lists(st.integers(0, 3 * 86_400), min_size=4, max_size=12),
)
def test_from_any_instant_the_next_and_the_previous_are_the_oracles(
    place: tuple[str, datetime], wanted: list[Spec], seconds: list[int]
) -> None:
    zone, start = place
    looked_at = window(zone, start)
    for spec in wanted:
        rule, due = Rule(spec.expression(), zone), looked_at.due(spec)
        for at in (start + timedelta(seconds=second) for second in seconds):
            later, earlier = rule.next(at), rule.previous(at)
            assert (later if later and later <= looked_at.end else None) == min(
                (d for d in due if d > at), default=None
            )
            assert (earlier if earlier and earlier > start else None) == max(
                (d for d in due if d < at), default=None
            )


def test_in_the_second_pass_of_a_doubled_hour_the_previous_instant_is_in_the_first() -> None:
    rule = Rule("30 2 * * *", "Europe/Warsaw")
    assert rule.previous(utc(2026, 10, 25, 1, 10)) == utc(2026, 10, 25, 0, 30)
    assert rule.next(utc(2026, 10, 25, 1, 10)) == utc(2026, 10, 26, 1, 30)


def backward(rule: Rule, looked_at: Window) -> list[datetime]:
    """The last fifty instants of the window, found from its end."""
    found: list[datetime] = []
    at = rule.previous(looked_at.end + timedelta(seconds=1))
    while at is not None and at > looked_at.start and len(found) < 50:
        found.append(at)
        at = rule.previous(at)
    return found[::-1]


EVERY_QUARTER = Spec(minute=frozenset({0, 15, 30, 45}))
FIXED = Spec(minute=frozenset({0, 30}), hour=frozenset({0, 1, 2, 3, 23}))


@pytest.mark.parametrize("zone", ZONES)
def test_every_change_of_the_clocks_in_six_years_is_as_the_oracle_has_it(zone: str) -> None:
    for change in (change for year in YEARS for change in zones.changes(zone, year)):
        start = change.at - timedelta(hours=5)
        looked_at = Window(zone, start, change.at + timedelta(hours=5))
        for spec in (EVERY_QUARTER, FIXED):
            rule = Rule(spec.expression(), zone)
            assert rule.between(start, looked_at.end, 10_000) == looked_at.due(spec), (zone, change)


WHOLE = [(zone, year) for zone in ZONES for year in YEARS]
"""Every minute of them all is looked at by `./m chaos` alone; here one year of each way to change the clocks."""
FEW = [("Europe/Warsaw", 2018), ("Australia/Lord_Howe", 2019), ("America/Sao_Paulo", 2018)]


@pytest.mark.parametrize("zone", ZONES if FULL else sorted({zone for zone, _ in FEW}))
def test_every_minute_of_whole_years_is_as_the_oracle_has_it(zone: str) -> None:
    for year in (year for of, year in (WHOLE if FULL else FEW) if of == zone):
        looked_at = Window(zone, utc(year, 1, 1), utc(year + 1, 1, 1))
        for spec in (
            EVERY_QUARTER,
            FIXED,
            Spec(minute=frozenset({7}), hour=frozenset({2}), weekday=frozenset({0})),
        ):
            rule = Rule(spec.expression(), zone)
            assert rule.between(looked_at.start, looked_at.end, 100_000) == looked_at.due(spec), (zone, year)


# Daylight saving, case by case: expression, zone, from, until, and the instants with the local time at each

DST = [
    ("30 2 * * *", "Europe/Warsaw", utc(2027, 3, 27, 12), ["03-28 01:00Z 03:00", "03-29 00:30Z 02:30"]),
    ("30 2 * * *", "Europe/Warsaw", utc(2026, 10, 24, 12), ["10-25 00:30Z 02:30", "10-26 01:30Z 02:30"]),
    ("0 30 2 * * *", "Europe/Warsaw", utc(2027, 3, 27, 12), ["03-28 01:00Z 03:00", "03-29 00:30Z 02:30"]),
    ("*/20 2 * * *", "Europe/Warsaw", utc(2027, 3, 27, 12), ["03-28 01:00Z 03:00", "03-29 00:00Z 02:00"]),
    ("30 2,3 * * *", "Europe/Warsaw", utc(2027, 3, 28), ["03-28 01:00Z 03:00", "03-28 01:30Z 03:30"]),
    ("0 2,3 * * *", "Europe/Warsaw", utc(2027, 3, 28), ["03-28 01:00Z 03:00", "03-29 00:00Z 02:00"]),
    ("30 * * * *", "Europe/Warsaw", utc(2027, 3, 28), ["03-28 00:30Z 01:30", "03-28 01:30Z 03:30"]),
    ("30 * * * *", "Europe/Warsaw", utc(2026, 10, 25), ["10-25 00:30Z 02:30", "10-25 01:30Z 02:30", "10-25 02:30Z 03:30"]),
    ("0 */2 * * *", "Europe/Warsaw", utc(2026, 10, 24, 23), ["10-25 00:00Z 02:00", "10-25 01:00Z 02:00", "10-25 03:00Z 04:00"]),
    ("0 0-23 * * *", "Europe/Warsaw", utc(2026, 10, 24, 23, 59), ["10-25 00:00Z 02:00", "10-25 01:00Z 02:00"]),
    ("30 1 * * *", "America/New_York", utc(2026, 11, 1), ["11-01 05:30Z 01:30", "11-02 06:30Z 01:30"]),
    ("30 2 * * *", "America/New_York", utc(2027, 3, 14), ["03-14 07:00Z 03:00", "03-15 06:30Z 02:30"]),
    ("15 2 * * *", "Australia/Lord_Howe", utc(2026, 10, 3), ["10-03 15:30Z 02:30", "10-04 15:15Z 02:15"]),
    ("45 1 * * *", "Australia/Lord_Howe", utc(2027, 4, 3), ["04-03 14:45Z 01:45", "04-04 15:15Z 01:45"]),
    ("*/30 * * * *", "Australia/Lord_Howe", utc(2027, 4, 3, 14, 20), ["04-03 14:30Z 01:30", "04-03 15:00Z 01:30", "04-03 15:30Z 02:00"]),
    ("30 1 * * *", "Antarctica/Troll", utc(2027, 3, 28), ["03-28 01:00Z 03:00", "03-28 23:30Z 01:30"]),
    ("30 1 * * *", "Antarctica/Troll", utc(2026, 10, 24, 12), ["10-24 23:30Z 01:30", "10-26 01:30Z 01:30"]),
    ("15 0 * * *", "America/Sao_Paulo", utc(2018, 11, 3, 12), ["11-04 03:00Z 01:00", "11-05 02:15Z 00:15"]),
    ("0 0 * * *", "America/Sao_Paulo", utc(2018, 11, 3, 12), ["11-04 03:00Z 01:00", "11-05 02:00Z 00:00"]),
    ("30 23 * * *", "America/Sao_Paulo", utc(2019, 2, 16, 12), ["02-17 01:30Z 23:30", "02-18 02:30Z 23:30"]),
    ("15 0 * * *", "Asia/Beirut", utc(2026, 3, 28, 12), ["03-28 22:00Z 01:00", "03-29 21:15Z 00:15"]),
    ("30 23 * * *", "Asia/Beirut", utc(2026, 10, 24, 12), ["10-24 20:30Z 23:30", "10-25 21:30Z 23:30"]),
    ("15 0 * * *", "America/Asuncion", utc(2023, 9, 30, 12), ["10-01 04:00Z 01:00", "10-02 03:15Z 00:15"]),
    ("0 9 30 12 *", "Pacific/Apia", utc(2011, 12, 1), ["12-30 10:00Z 00:00", "12-29 19:00Z 09:00"]),
    ("0 0 29 2 *", "Europe/Warsaw", utc(2026, 1, 1), ["02-28 23:00Z 00:00", "02-28 23:00Z 00:00"]),
    ("0 0 1 1 *", "Pacific/Auckland", utc(2026, 6, 1), ["12-31 11:00Z 00:00", "12-31 11:00Z 00:00"]),
    ("59 23 31 12 *", "Europe/Warsaw", utc(2026, 12, 31), ["12-31 22:59Z 23:59", "12-31 22:59Z 23:59"]),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "zone", "after", "due"), DST)
def test_daylight_saving(expression: str, zone: str, after: datetime, due: list[str]) -> None:
    rule = Rule(checked_expression(expression), zone)
    found = rule.between(after, after + timedelta(days=3700), len(due))
    assert [f"{at:%m-%d %H:%M}Z {zones.wall(zone, at):%H:%M}" for at in found] == due
    assert rule.previous(found[-1]) == found[-2]


@pytest.mark.parametrize(
    ("expression", "at", "note"),
    [
        ("30 2 * * *", utc(2027, 3, 28, 1), "02:30 does not exist on this day: it runs right after the gap"),
        (
            "30 2 * * *",
            utc(2026, 10, 25, 0, 30),
            "02:30 comes twice on this day: it runs once, the first time",
        ),
        ("30 * * * *", utc(2026, 10, 25, 0, 30), "02:30 comes twice on this day: this is the first time"),
        ("30 * * * *", utc(2026, 10, 25, 1, 30), "02:30 comes twice on this day: this is the second time"),
        ("30 * * * *", utc(2027, 3, 28, 1, 30), "the clocks skip 02:00 to 03:00 before it"),
        ("30 * * * *", utc(2027, 3, 28, 2, 30), ""),
        ("30 2 * * *", utc(2027, 3, 29, 0, 30), ""),
        ("0 3 * * *", utc(2027, 3, 28, 1), ""),
        ("every 30m", utc(2027, 3, 28, 1), ""),
    ],
)
def test_the_preview_says_what_daylight_saving_does(expression: str, at: datetime, note: str) -> None:
    assert Rule(checked_expression(expression), "Europe/Warsaw").note(at) == note


# Intervals, limits, seconds


@given(
    st.integers(1, 100_000),
    st.sampled_from("smhd"),
    st.integers(0, 315_000_000),
    st.integers(0, 315_000_000),
)
def test_an_interval_counts_from_its_anchor(n: int, unit: str, anchor_s: int, at_s: int) -> None:
    step = timedelta(seconds=n * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[unit])
    anchor, at = (utc(2020, 1, 1) + timedelta(seconds=seconds) for seconds in (anchor_s, at_s))
    rule = Rule(f"every {n}{unit}", anchor=anchor)
    after, before = rule.next(at), rule.previous(at)
    assert after is not None
    assert before is not None
    assert at < after <= at + step
    assert at - step <= before < at
    assert (after - anchor) % step == (before - anchor) % step == timedelta(0)


def test_nothing_is_due_before_the_start_or_after_the_end() -> None:
    rule = Rule("0 * * * *", start=utc(2026, 1, 1, 10), end=utc(2026, 1, 1, 12))
    hours = [utc(2026, 1, 1, hour) for hour in (10, 11, 12)]
    assert rule.between(utc(2020, 1, 1), utc(2030, 1, 1), 100) == hours
    assert rule.next(hours[-1]) is None
    assert rule.previous(hours[0]) is None
    assert rule.previous(utc(2030, 1, 1)) == hours[-1]


def test_seconds_are_the_first_of_six_fields() -> None:
    rule = Rule(checked_expression("*/20 59 23 * * *"), "Europe/Warsaw")
    found = rule.between(utc(2026, 1, 1), utc(2026, 1, 2), 10)
    assert [f"{at:%H:%M:%S}" for at in found] == ["22:59:00", "22:59:20", "22:59:40"]


@pytest.mark.parametrize(
    ("typed", "stored"),
    [("  0  9 * *  mon-fri ", "0 9 * * MON-FRI"), ("@Daily", "@daily"), ("EVERY 30 S", "every 30s"), ("0 0 L * *", "0 0 L * *")],
)  # fmt: skip
def test_an_expression_has_one_spelling(typed: str, stored: str) -> None:
    assert checked_expression(typed) == stored


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("61 * * * *", "the minute '61' is not allowed; it may be 0-59"),
        ("0 25 * * *", "the hour '25' is not allowed"),
        ("0 0 32 * *", "the day of the month '32'"),
        ("0 0 1 13 *", "the month '13'"),
        ("0 0 * * FUNDAY", "the day of the week 'FUNDAY'"),
        ("99 0 0 * * *", "the second '99'"),
        ("0 0 30 2 *", "no month it names has such a day"),
        ("* * * *", "has 4 fields; it must be five fields"),
        ("", "is needed"),
        ("every 0s", "is not an interval"),
        ("every 500d", "longer than a year"),
        ("0 " * 200, "at most 200"),
    ],
)
def test_a_wrong_expression_is_refused_with_what_is_allowed(typed: str, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        checked_expression(typed)
    assert words in refused.value.problems["cron_expression"]


@pytest.mark.parametrize(
    "name", ["Mars/Base", "", "localtime", "Europe", "/etc/passwd", "../UTC", "posixrules"]
)
def test_what_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        checked_zone(name)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        expression = checked_expression(text)
    except Invalid:
        return
    assert Rule(expression).next(utc(2026, 1, 1)) is not None
    assert sentence(Rule(expression))


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("0 9 * * MON-FRI", "At 09:00 on Monday through Friday, Europe/Warsaw time"),
        ("*/5 * * * *", "Every 5 minutes, Europe/Warsaw time"),
        ("0 0 L * *", "At 00:00 on the last day of every month, Europe/Warsaw time"),
        ("0 9 * * 5#2", "At 09:00 on the second Friday of the month, Europe/Warsaw time"),
        ("every 90s", "Every 90 seconds"),
        ("every 120s", "Every 2 minutes"),
    ],
)
def test_a_schedule_in_a_sentence(expression: str, words: str) -> None:
    assert sentence(Rule(checked_expression(expression), "Europe/Warsaw")) == words
