"""What one socket may cost: the latest wins, frames are bounded, a reader that does not read reaches the cap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from webapp.live.waiting import CAP_BYTES, FRAME_BYTES, Piece, Waiting


def drained(waiting: Waiting) -> list[str]:
    frames = []
    while waiting:
        frames.append(waiting.frame())
    return frames


def test_the_latest_of_a_key_wins_and_keeps_its_place():
    waiting = Waiting()
    for key, text in (("a", "<1>"), ("b", "<2>"), ("a", "<3>")):
        assert waiting.put(key, Piece.of_html(text))
    assert drained(waiting) == ["<3><2>"]
    assert waiting.size == 0


def test_json_is_a_frame_of_its_own_in_its_place():
    waiting = Waiting()
    waiting.put(1, Piece.of_html("<1>"))
    waiting.put(2, Piece.of_json(b'{"mode":"live"}'))
    waiting.put(3, Piece.of_html("<3>"))
    assert drained(waiting) == ["<1>", '{"mode":"live"}', "<3>"]


def test_bytes_count_and_not_characters():
    assert Piece.of_html("ż" * 10).size == 20


def test_the_cap_is_reached_by_what_waits_and_not_by_what_was_replaced():
    waiting = Waiting()
    big = Piece.of_html("x" * 60_000)
    for _ in range(1000):
        assert waiting.put("same", big)
    assert sum(waiting.put(key, big) for key in range(100)) == (CAP_BYTES - 60_000) // 60_000


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, FRAME_BYTES), st.booleans()), max_size=40))
def test_frames_fit_and_nothing_is_lost(puts):
    waiting = Waiting(cap_bytes=10**9)
    last: dict[int, str] = {}
    for number, (key, size, html) in enumerate(puts):
        text = f"[{number}]".ljust(size, "x")[:FRAME_BYTES]
        waiting.put(key, Piece(text, len(text), html))
        last[key] = text
    assert waiting.size == sum(map(len, last.values()))
    frames = drained(waiting)
    assert all(len(frame) <= FRAME_BYTES for frame in frames)
    assert "".join(frames) == "".join(last.values())
