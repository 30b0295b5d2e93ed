"""Every error of the engine on one screen: its facts are fields, its docstring is the message."""

from __future__ import annotations

from typing import Any, ClassVar


class DeskError(Exception):
    """Something went wrong on the desk."""

    retriable: ClassVar[bool] = False
    """Whether trying the same thing again can help."""

    def __init__(self, **facts: Any) -> None:
        self.facts = facts
        self.__dict__.update(facts)
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The class's docstring with this error's facts filled in."""
        return " ".join((self.__doc__ or "").split()).format(**self.facts)


# Configuration


class SettingsError(DeskError):
    """The configuration has {count} mistake(s): {mistakes}"""


class JobModuleError(DeskError):
    """The job module {module!r} could not be imported: {cause}"""


class DuplicateJob(DeskError):
    """Two jobs are called {name!r}: {first} and {second}. A job's name must be unique."""


class BadJobDefinition(DeskError):
    """The job {name!r} cannot be registered: {problem}"""


class PortTaken(DeskError):
    """Port {port} on {host} is taken by another program. Stop it, or choose another with --port."""


# Asking for something that is not there, or not allowed


class NotFound(DeskError):
    """There is no {noun} {key!r}."""


class Denied(DeskError):
    """This needs the role {role}; you are {actual}."""


class Invalid(DeskError):
    """{problems_text}"""

    def __init__(self, problems: dict[str, str]) -> None:
        """`problems` maps a field's name to what is wrong with it and what is allowed."""
        self.problems = problems
        super().__init__(
            problems=problems,
            problems_text="; ".join(f"{field}: {what}" for field, what in problems.items()),
        )

    @property
    def message(self) -> str:
        return str(self.facts["problems_text"])


class UnknownJob(NotFound):
    """No worker offers a job called {key!r}."""

    def __init__(self, key: str) -> None:
        super().__init__(noun="job", key=key)


# Jobs


class NotAllowedNow(DeskError):
    """Job {job_id} is {status}: it cannot be {wish}."""


class TooLate(DeskError):
    """Job {job_id} ended as {status} before it could be cancelled."""


class ChangedMeanwhile(DeskError):
    """The {noun} {key!r} was changed by somebody else: you saw version {seen}, it is version {current} now."""


class OwnedByCode(DeskError):
    """The schedule {name!r} belongs to the code of {module}: take it out there, or switch it off here."""


class WorkerLeaving(DeskError):
    """The worker {key} is leaving already: {why}."""


class DeliveryBusy(DeskError):
    """The delivery {key} is {status}: it cannot be sent again now."""


class WebhookOff(DeskError):
    """The webhook {name!r} is switched off: switch it on before something is sent again."""


class ReplayEnded(DeskError):
    """The replay {key} is {status}: it cannot be stopped."""


class KeyHeld(DeskError):
    """The unique key {unique_key!r} is held by job {holder}, which has not ended."""


class KeyBusy(DeskError):
    """The unique key {unique_key!r} is being used by a transaction that has not ended."""

    retriable = True


class QueueFull(DeskError):
    """Queue {queue!r} already holds {depth} waiting jobs (limit {limit}). Nothing was enqueued."""

    retriable = True


class IdempotencyMismatch(DeskError):
    """The Idempotency-Key {key!r} was used before with another body."""


class StaleEpoch(DeskError):
    """Job {job_id} is no longer held by this execution (epoch {epoch}): its work was not committed."""


class EffectInDoubt(DeskError):
    """The effect {key!r} of job {job_id} was started before and nobody knows whether it happened."""


# The machinery behind


class DatabaseUnavailable(DeskError):
    """The database {database} cannot be used: {cause}"""

    retriable = True


class DatabaseOutdated(DeskError):
    """The database is at migration {found}, this program needs {wanted}. Run: m db upgrade"""


class BrokerRequired(DeskError):
    """A separate worker needs a broker: set NATS_URL (or REDIS_URL). Without one, `m web` runs jobs itself."""


class BusAway(DeskError):
    """The event bus did not confirm: {detail}. The outbox keeps what was recorded; it is published later."""

    retriable = True


class EvaluationAway(DeskError):
    """Conditions and templates of webhooks cannot be evaluated now: {cause}. Nothing was changed."""

    retriable = True


class BulkSkipsEvents(DeskError):
    """A bulk {verb} of {doctype} would skip its events: use the repository's methods, or change the rows one by one."""


class NotBound(DeskError):
    """No engine runs in this process: start one with Engine.create, or use `m worker`, `m web` or worker.testing."""


class JobFailed(DeskError):
    """Job {job_id} ended as {status}: {error}"""


# Accounts


class BadCredentials(DeskError):
    """The name or the password is wrong."""


class Throttled(DeskError):
    """Too many attempts. Try again in {retry_after_s} seconds."""

    retriable = True


class SetupClosed(DeskError):
    """This set-up link is used, expired or wrong. Make a new one with: m setup-link"""


class WrongPassword(DeskError):
    """The current password is wrong. Nothing was changed."""


class AlreadySetUp(DeskError):
    """This desk has people already: sign in, or add one with: m user add"""


class SecretUnreadable(DeskError):
    """A stored secret cannot be read: it was encrypted under another M_SECRET_KEY."""
