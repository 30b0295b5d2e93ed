#!/usr/bin/env python3
"""Makes the passwords and keys that compose.yaml mounts, in deploy/secrets/. Never overwrites one that is there."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "secrets"


def main() -> None:
    folder = Path(sys.argv[1]) if sys.argv[1:] else FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    postgres = keep(folder / "postgres_password", secrets.token_urlsafe(32))
    web = keep(folder / "nats_password_web", secrets.token_urlsafe(32))
    worker = keep(folder / "nats_password_worker", secrets.token_urlsafe(32))
    keep(folder / "secret_key", secrets.token_urlsafe(48))
    keep(folder / "database_url", f"postgresql://desk:{postgres}@postgres:5432/desk")
    keep(folder / "nats_url_web", f"nats://web:{web}@nats:4222")
    keep(folder / "nats_url_worker", f"nats://worker:{worker}@nats:4222")
    keep(folder / "nats_passwords.conf", f'WEB_PASSWORD: "{web}"\nWORKER_PASSWORD: "{worker}"')


def keep(path: Path, text: str) -> str:
    """What the file holds; written first where there is none. The containers' users differ, so the folder is what is private."""
    if not path.exists():
        path.write_text(text + "\n", encoding="utf-8")
        path.chmod(0o644)
    return path.read_text(encoding="utf-8").strip()


if __name__ == "__main__":
    main()
