"""What a receiver runs to verify a delivery, ready to be copied. The secret stays in the receiver's environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Snippet:
    key: str
    label: str
    code: str


PYTHON: Final = """\
import os

from standardwebhooks import Webhook  # pip install standardwebhooks


def verified(body: bytes, headers: dict[str, str]) -> dict:
    \"\"\"The delivery's JSON; raises WebhookVerificationError when it is not from the desk, or older than 5 minutes.\"\"\"
    return Webhook(os.environ["WEBHOOK_SECRET"]).verify(body, headers)
"""

NODE: Final = """\
import { Webhook } from "standardwebhooks"; // npm install standardwebhooks

// body: the raw bytes as a string, before any JSON parser; throws when it is not from the desk, or older than 5 minutes.
export function verified(body, headers) {
  return new Webhook(process.env.WEBHOOK_SECRET).verify(body, headers);
}
"""

CURL: Final = """\
# Sends a signed example to your receiver, as the desk would. Set URL and WEBHOOK_SECRET first.
ID=example TIME=$(date +%s) BODY='{"type":"example","timestamp":"2026-01-01T00:00:00Z","data":{}}'
KEY=$(printf %s "${WEBHOOK_SECRET#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \\n')
SIGNATURE=$(printf '%s.%s.%s' "$ID" "$TIME" "$BODY" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$KEY" -binary | openssl base64 -A)
curl -i "$URL" -H 'Content-Type: application/json' -d "$BODY" \\
  -H "webhook-id: $ID" -H "webhook-timestamp: $TIME" -H "webhook-signature: v1,$SIGNATURE"
"""


def snippets() -> tuple[Snippet, ...]:
    return (
        Snippet("python", "Python", PYTHON),
        Snippet("node", "Node", NODE),
        Snippet("curl", "curl", CURL),
    )
