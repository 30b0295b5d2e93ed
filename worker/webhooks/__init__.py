"""Webhooks: who outside is told of which events, signed how, and what became of every delivery.

`matching` is the rule of who gets what. `taker` writes one WebhookLog for each event and webhook that match, in the
transaction that marks the event as handed over. `courier` claims deliveries that are due and sends them, many at once;
every attempt is a WebhookAttempt, and `retries` says when the next one is due. `actions` is what people and programs
do. Any number of clerks may run it at once: a delivery is fenced by its epoch as a job is.
"""
