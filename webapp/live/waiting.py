"""What waits to be sent to one socket: bounded by bytes, the latest of a key wins, cut into frames. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

FRAME_BYTES = 64 * 1024
CAP_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Piece:
    """A fragment of HTML, joined with others into one frame, or a JSON message, a frame of its own. Shared by sockets."""

    text: str
    size: int
    html: bool

    @classmethod
    def of_html(cls, text: str) -> Piece:
        return cls(text, len(text.encode()), html=True)

    @classmethod
    def of_json(cls, data: bytes) -> Piece:
        return cls(data.decode(), len(data), html=False)


class Waiting:
    """The pieces in the order in which their keys first came; a newer piece of a key takes the older one's place."""

    def __init__(self, cap_bytes: int = CAP_BYTES) -> None:
        self.cap_bytes = cap_bytes
        self.size = 0
        self._pieces: OrderedDict[Hashable, Piece] = OrderedDict()

    def put(self, key: Hashable, piece: Piece) -> bool:
        """False: the cap is reached, this reader is too slow to be kept."""
        before = self._pieces.get(key)
        self.size += piece.size - (before.size if before else 0)
        self._pieces[key] = piece
        return self.size <= self.cap_bytes

    def clear(self) -> None:
        self._pieces.clear()
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def frame(self) -> str:
        """The next frame: as many HTML pieces as fit, or one JSON message."""
        _, first = self._pieces.popitem(last=False)
        self.size -= first.size
        if not first.html or not self._pieces:
            return first.text
        texts, taken = [first.text], first.size
        while self._pieces:
            key, piece = next(iter(self._pieces.items()))
            if not piece.html or taken + piece.size > FRAME_BYTES:
                break
            del self._pieces[key]
            self.size -= piece.size
            taken += piece.size
            texts.append(piece.text)
        return "".join(texts)
