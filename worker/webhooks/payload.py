"""The bodies of deliveries: the one of Standard Webhooks, and templates for receivers that want another. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

CONTENT_TYPE: Final = "application/json"
_BESIDE: Final = ("event_id", "doctype", "doc_id", "user_id")


def standard(event: Mapping[str, Any]) -> bytes:
    """`{"type", "timestamp", "data"}` of Standard Webhooks 1.0, with the event's id, document and person beside them."""
    body = {"type": event["event_type"], "timestamp": event["timestamp"]}
    body |= {name: event[name] for name in _BESIDE if event.get(name) is not None}
    body["data"] = event.get("data", {})
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def about(webhook_name: str, desk_url: str) -> dict[str, Any]:
    """What a template may name beside the event."""
    return {"webhook": {"name": webhook_name}, "desk": {"url": desk_url}}


_NAME = "data.job_name | default(data.name | default(doc_id | default(data.queue | default(''))))"

TEMPLATES: Final[dict[str, str]] = {
    "slack": """\
{% set subject = """ + _NAME + """ -%}
{% set link = desk.url ~ ("/job-logs/" ~ data.job_id if data.job_id is defined else "/events/" ~ event_id) -%}
{
  "text": "*{{ event_type }}* {{ (subject | string).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") }}\
 (<{{ link }}|open the desk>)"
}
""",
    "teams": """\
{% set subject = """ + _NAME + """ -%}
{
  "type": "message",
  "attachments": [{
    "contentType": "application/vnd.microsoft.card.adaptive",
    "content": {
      "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
      "type": "AdaptiveCard",
      "version": "1.4",
      "body": [
        {"type": "TextBlock", "size": "medium", "weight": "bolder", "text": "{{ event_type }}"},
        {"type": "TextBlock", "wrap": true, "text": "{{ subject }}"},
        {"type": "TextBlock", "isSubtle": true, "text": "{{ timestamp }}"}
      ],
      "actions": [{"type": "Action.OpenUrl", "title": "Open the desk",
        "url": "{{ desk.url }}{{ "/job-logs/" ~ data.job_id if data.job_id is defined else "/events/" ~ event_id }}"}]
    }
  }]
}
""",
    "json": """\
{
  "event": "{{ event_type }}",
  "at": "{{ timestamp }}",
  "data": {{ data }}
}
""",
}  # fmt: skip
"""Ready to be used, by the name of what receives them."""
