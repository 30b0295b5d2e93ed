"""Static files from memory, under a path that names their content: cached for ever, and fresh after every deploy."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import brotli
from litestar import Request, Response, get
from litestar.exceptions import NotFoundException

PACKABLE: Final = ("text/", "application/javascript", "application/json", "image/svg+xml")
FOR_EVER: Final = "public, max-age=31536000, immutable"
TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2"}
"""Fixed here: what the operating system's registry says differs from machine to machine."""


@dataclass(slots=True)
class File:
    """One file, packed when it is first asked for."""

    content: bytes
    media_type: str
    packed: dict[str, bytes] = field(default_factory=dict)

    def encoded(self, accepted: str) -> tuple[bytes, str | None]:
        """The content as this browser can read it in the fewest bytes, and the name of the encoding."""
        if self.media_type.startswith(PACKABLE):
            for name, pack in (("br", lambda raw: brotli.compress(raw, quality=9)), ("gzip", gzip.compress)):
                if name in accepted:
                    if name not in self.packed:
                        self.packed[name] = pack(self.content)
                    return self.packed[name], name
        return self.content, None


class StaticFiles:
    """All files of the folder, read once, and their common version."""

    def __init__(self, folder: Path) -> None:
        self.files = {
            path.relative_to(folder).as_posix(): File(path.read_bytes(), _media_type(path))
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        digest = hashlib.sha256()
        for name, file in self.files.items():
            digest.update(f"{name} {len(file.content)}\n".encode() + file.content)
        self.version = digest.hexdigest()[:12]

    def url(self, path: str) -> str:
        """The address of `static/<path>`; modules and style sheets find each other relative to it."""
        if path not in self.files:
            raise FileNotFoundError(f"static/{path}")
        return f"/static/{self.version}/{path}"


@get("/static/{version:str}/{path:path}", opt={"public": True}, sync_to_thread=False)
def static_file(request: Request[Any, Any, Any], version: str, path: str) -> Response[bytes]:
    return _answer(request, version, path.lstrip("/"))


@get("/favicon.ico", opt={"public": True}, sync_to_thread=False)
def favicon(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Browsers ask for it also where a page names another icon."""
    return _answer(request, "", "icons/favicon.svg")


def _answer(request: Request[Any, Any, Any], version: str, path: str) -> Response[bytes]:
    static: StaticFiles = request.app.state.static
    file = static.files.get(path)
    if file is None:
        raise NotFoundException
    content, encoding = file.encoded(request.headers.get("accept-encoding", ""))
    cache = FOR_EVER if version == static.version else "no-cache"
    headers = {"Cache-Control": cache, "Vary": "Accept-Encoding"}
    if encoding:
        headers["Content-Encoding"] = encoding
    return Response(content, media_type=file.media_type, headers=headers)


def _media_type(path: Path) -> str:
    return TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"


routes = [static_file, favicon]
