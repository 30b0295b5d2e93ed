"""What a page may say over its socket, parsed and bounded. A page can ask to see, never to act."""

from __future__ import annotations

from typing import Annotated

import msgspec

from webapp.live.watch import Key

MAX_FRAME_BYTES = 64 * 1024
MAX_KEYS = 2_000

Text = Annotated[str, msgspec.Meta(max_length=1_100)]
Rev = Annotated[str, msgspec.Meta(max_length=80)]
Pairs = Annotated[list[tuple[Text, Rev]], msgspec.Meta(max_length=MAX_KEYS + 1)]


class RowsWanted(msgspec.Struct, forbid_unknown_fields=True):
    """The next rows that are newer than the first one shown in this list."""

    key: Text
    after: Rev
    limit: Annotated[int, msgspec.Meta(ge=1, le=10)] = 5


class PageMessage(msgspec.Struct, forbid_unknown_fields=True):
    """`watch` names everything the page shows, `also` continues it in a second frame, `rows` asks for new rows."""

    watch: Pairs | None = None
    also: Pairs | None = None
    rows: RowsWanted | None = None


class BadMessage(ValueError):
    """Not what a page of ours sends; the text says why."""


_decoder = msgspec.json.Decoder(PageMessage)


def parse(text: str) -> PageMessage:
    """Raises BadMessage."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadMessage(str(error)) from error


def keys_of(pairs: list[tuple[str, str]]) -> list[tuple[Key, str]]:
    return [(Key.parse(text), rev) for text, rev in pairs]
