"""Answers are compressed, and what compressed them is gone with them."""

from __future__ import annotations

import gc
import weakref

import brotli
import pytest
from litestar.middleware.compression import brotli_facade

from tests.webapp.site import running_site

ENCODERS: list[weakref.ref[brotli.Compressor]] = []


class Watched(brotli.Compressor):
    """An encoder that can be asked for when it should be gone."""

    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        ENCODERS.append(weakref.ref(self))


@pytest.fixture
def _watched(monkeypatch):
    ENCODERS.clear()
    monkeypatch.setattr(brotli_facade, "Compressor", Watched)
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_watched")
@pytest.mark.parametrize("path", ["/sign-in", "/healthz"])
async def test_an_encoder_goes_with_the_answer_and_waits_for_no_collector(sqlite_url, tmp_path, path):
    async with running_site(sqlite_url, tmp_path) as site:
        answer = await site.browser().get(path, headers={"Accept-Encoding": "br"})
    assert ENCODERS
    assert [each() for each in ENCODERS] == [None] * len(ENCODERS)
    assert (answer.headers.get("Content-Encoding") == "br") is (path == "/sign-in")


@pytest.mark.parametrize(("asked", "encoding"), [("br, gzip", "br"), ("gzip", "gzip"), ("identity", None)])
async def test_a_client_gets_what_it_can_read(sqlite_url, tmp_path, asked, encoding):
    async with running_site(sqlite_url, tmp_path) as site:
        answer = await site.browser().get("/sign-in", headers={"Accept-Encoding": asked})
    assert answer.headers.get("Content-Encoding") == encoding
    assert "<form" in answer.text
