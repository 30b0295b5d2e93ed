"""What saving and trying out a webhook needs: the same rule and the same child as when it is sent."""

from __future__ import annotations

from worker.settings import Settings
from worker.webhooks.sandbox import Sandbox
from worker.webhooks.sending import SaveChecks
from worker.webhooks.transport import Sender
from worker.webhooks.urls import Rule


class WebhookChecks(SaveChecks):
    """One for each process in which webhooks are saved or tried. Nothing is started before it is needed."""

    def __init__(self, settings: Settings) -> None:
        self.transport = Sender(Rule.of(settings))
        self.sandbox = Sandbox()
        super().__init__(self.transport, self.sandbox)

    async def close(self) -> None:
        self.transport.close()
        await self.sandbox.close()
