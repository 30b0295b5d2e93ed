"""The environment is read as a whole: every mistake is named, with its value and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.errors import SettingsError
from worker.settings import Settings


def read(tmp_path: Path, **environ: str) -> Settings:
    return Settings.from_env({"M_HOME": str(tmp_path), **environ})


def test_without_anything_it_is_sqlite_in_the_home_and_memory(tmp_path: Path) -> None:
    settings = read(tmp_path)
    assert settings.database_url == f"sqlite+aiosqlite:///{tmp_path / 'desk.db'}"
    assert (settings.transport, settings.host, settings.port) == ("memory", "127.0.0.1", 8000)


def test_all_mistakes_are_reported_at_once_by_variable_value_and_rule(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as wrong:
        read(
            tmp_path,
            M_PORT="99999",
            NATS_URL="htp:/x",
            M_PREFIX="a b",
            M_TRUSTED_PROXIES="me",
            DATABASE_URL="mysql://u:p@h/d",
        )
    text = str(wrong.value)
    for part in (
        "M_PORT='99999'",
        "from 1 to 65535",
        "NATS_URL",
        "nats://",
        "M_PREFIX='a b'",
        "M_TRUSTED_PROXIES",
        "DATABASE_URL",
    ):
        assert part in text
    assert wrong.value.facts["count"] == 5
    assert ":p@" not in text


def test_an_entry_of_the_webhooks_list_that_means_nothing_stops_the_start(tmp_path: Path) -> None:
    assert read(tmp_path, M_WEBHOOK_ALLOW="10.0.0.0/8, *.corp.example").webhook_allow == (
        "10.0.0.0/8",
        "*.corp.example",
    )
    with pytest.raises(
        SettingsError, match=r"M_WEBHOOK_ALLOW='10\.0\.0/8' is not allowed: it must be networks like"
    ):
        read(tmp_path, M_WEBHOOK_ALLOW="receiver,10.0.0/8")


def test_a_file_gives_any_variable_its_value(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("nats://broker:4222\n")
    settings = read(tmp_path, NATS_URL_FILE=str(tmp_path / "url"))
    assert settings.nats_url == "nats://broker:4222"
    assert settings.sources["nats_url"] == "NATS_URL_FILE"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="M_SECRET_KEY_FILE"):
        read(tmp_path, M_SECRET_KEY_FILE=str(tmp_path / "missing"))


@pytest.mark.parametrize("word", ["on", "true", "Yes", "1"])
def test_a_switch_is_on_by_any_usual_word(tmp_path: Path, word: str) -> None:
    assert read(tmp_path, M_READ_ONLY=word).read_only
    assert not read(tmp_path, M_READ_ONLY="off").read_only
    assert not read(tmp_path).read_only


def test_a_switch_that_is_neither_on_nor_off_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"M_READ_ONLY='maybe' is not allowed: .*on, true, yes, 1 or of off"
    ):
        read(tmp_path, M_READ_ONLY="maybe")


def test_the_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    first, second = read(tmp_path), read(tmp_path)
    assert first.secret_key == second.secret_key
    assert len(first.secret_key) >= 32
    assert (tmp_path / "secret.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "desk.example.com"])
def test_a_bind_beyond_loopback_needs_a_key_of_its_own(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingsError, match="M_SECRET_KEY is not set"):
        read(tmp_path, M_HOST=host)
    assert read(tmp_path, M_HOST=host, M_SECRET_KEY="k" * 32).host == host


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="at least 32 characters"):
        read(tmp_path, M_SECRET_KEY="short")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("postgresql://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgres://h/d", "postgresql+asyncpg://h/d"),
        ("sqlite:///x.db", "sqlite+aiosqlite:///x.db"),
    ],
)
def test_database_urls_get_the_driver(tmp_path: Path, given: str, wanted: str) -> None:
    assert read(tmp_path, DATABASE_URL=given).database_url == wanted


@pytest.mark.parametrize(
    ("given", "transport"),
    [
        ({}, "memory"),
        ({"REDIS_URL": "rediss://:word@h:6380/1"}, "redis"),
        ({"NATS_URL": "nats://h"}, "nats"),
        ({"NATS_URL": "nats://h", "REDIS_URL": "redis://h"}, "nats"),
    ],
)
def test_the_urls_choose_how_doorbells_travel(tmp_path: Path, given: dict[str, str], transport: str) -> None:
    assert read(tmp_path, **given).transport == transport


@pytest.mark.parametrize("url", ["http://h", "redis://", "redis://h:port", "redis://h:0", "rediss:h"])
def test_a_redis_url_that_is_none_is_refused_without_its_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match=r"REDIS_URL=.* is not allowed: it must be a URL like redis://"):
        read(tmp_path, REDIS_URL=url)
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, REDIS_URL="http://desk:s3cr3t@h")
    assert "s3cr3t" not in str(caught.value)


def test_a_database_in_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="path of a file"):
        read(tmp_path, DATABASE_URL="sqlite+aiosqlite:///:memory:")


def test_no_secret_is_in_the_settings_repr(tmp_path: Path) -> None:
    assert "k" * 32 not in repr(read(tmp_path, M_SECRET_KEY="k" * 32))
