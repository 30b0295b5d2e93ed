"""Words that pages make of values."""

from __future__ import annotations

import pytest

from webapp.filters import browser_words

CHROME = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/153.0.8010.0 Safari/537.36"
)
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/19.0 Mobile/15E148 Safari/604.1"
)
EDGE = CHROME.replace("X11; Linux x86_64", "Windows NT 10.0; Win64; x64") + " Edg/152.0.0.0"


@pytest.mark.parametrize(
    ("user_agent", "words"),
    [
        (CHROME, "Chrome 153 on Linux"),
        (CHROME.replace("Chrome/", "HeadlessChrome/"), "Chrome 153 on Linux"),
        (EDGE, "Edge 152 on Windows"),
        (IPHONE, "Safari 19 on iPhone"),
        ("Mozilla/5.0 (Macintosh; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox 140 on macOS"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("<b>" * 100, ("<b>" * 100)[:59] + "…"),
        ("", "an unknown program"),
    ],
)
def test_a_browser_is_named_as_a_person_would(user_agent: str, words: str) -> None:
    assert browser_words(user_agent) == words
