"""The table of who shows what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.live.watch import Key, Watch, is_news

A, B = Key("job-row", "a"), Key("job-row", "b")


def test_a_page_that_shows_other_things_is_forgotten_for_the_old_ones():
    watch: Watch[str] = Watch()
    watch.replace("ada", [(A, "1"), (B, "2")])
    watch.replace("ada", [(B, "3")])
    assert list(watch.watchers(A)) == []
    assert list(watch.watchers(B)) == [("ada", "3")]
    assert list(watch.keys("ada")) == [B]


def test_adding_keeps_what_was_there():
    watch: Watch[str] = Watch()
    watch.replace("ada", [(A, "1")])
    watch.add("ada", [(B, "2")])
    assert set(watch.keys("ada")) == {A, B}


def test_a_socket_that_left_is_nowhere():
    watch: Watch[str] = Watch()
    watch.replace("ada", [(A, "1")])
    watch.replace("bob", [(A, "1")])
    watch.drop("ada")
    watch.drop("ada")
    assert list(watch.watchers(A)) == [("bob", "1")]
    watch.drop("bob")
    assert not watch.ids("job-row")
    assert not watch.has(A)


def test_what_was_sent_is_what_the_page_has():
    watch: Watch[str] = Watch()
    watch.replace("ada", [(A, "1")])
    watch.sent("ada", A, "2")
    assert list(watch.watchers(A)) == [("ada", "2")]


def test_what_is_sent_to_a_page_that_moved_on_leaves_no_trace():
    watch: Watch[str] = Watch()
    watch.replace("ada", [(A, "1")])
    watch.replace("ada", [(B, "1")])
    watch.sent("ada", A, "2")
    assert not watch.has(A)


@pytest.mark.parametrize(
    ("found", "has", "news"),
    [("2", "1", True), ("10", "9", True), ("1", "2", False), ("2", "2", False), ("2", "", True), ("hab", "h1", True), ("h1", "h1", False), ("2", "hab", True)],
)  # fmt: skip
def test_numbers_grow_and_digests_differ(found, has, news):
    assert is_news(found, has) is news


def test_an_id_may_hold_anything():
    assert Key.parse("job-list:status:failed q") == Key("job-list", "status:failed q")
    assert str(Key.parse("job-list:status:failed q")) == "job-list:status:failed q"
    assert Key.parse("nothing") == Key("nothing", "")


class Steps:
    """What a page does: (socket, keys)."""

    all = st.lists(
        st.tuples(st.sampled_from("xyz"), st.none() | st.sets(st.sampled_from("abcd"))), max_size=30
    )


@given(Steps.all)
def test_both_directions_always_agree(steps):
    watch: Watch[str] = Watch()
    wanted: dict[str, set[str]] = {}
    for socket, ids in steps:
        if ids is None:
            watch.drop(socket)
            wanted.pop(socket, None)
        else:
            watch.replace(socket, [(Key("n", of), "1") for of in ids])
            wanted[socket] = ids
    assert {s: {k.id for k in watch.keys(s)} for s in wanted} == wanted
    for of in "abcd":
        assert {s for s, _ in watch.watchers(Key("n", of))} == {s for s, ids in wanted.items() if of in ids}
    assert set(watch.ids("n")) == set().union(*wanted.values()) if wanted else not watch.ids("n")
