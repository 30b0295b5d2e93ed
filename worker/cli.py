"""The `m` command: parse, call, print. One line on stderr names what went wrong; never a traceback unless asked for.

Exit codes: 0 done, 1 the job or the check failed, 2 usage, 78 configuration.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from worker import errors
from worker.commands import (
    accounts,
    controls,
    database,
    dead_letters,
    doctor,
    events,
    jobs,
    queues,
    schedules,
    serve,
    webhooks,
    workers,
)
from worker.commands.output import complain, say

CONFIGURATION_ERRORS = (
    errors.SettingsError,
    errors.JobModuleError,
    errors.DuplicateJob,
    errors.BadJobDefinition,
    errors.BrokerRequired,
)
FAILED, CONFIGURATION, INTERRUPTED = 1, 78, 130

app = typer.Typer(
    name="m",
    help="M Desk: a desk for background jobs.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("dev")(serve.dev)
app.command("web")(serve.web)
workers.add_to(serve.worker_app)
app.add_typer(serve.worker_app, name="worker")
app.add_typer(jobs.job_app, name="job")
app.add_typer(jobs.joblog_app, name="joblog")
app.add_typer(queues.queue_app, name="queue")
app.add_typer(dead_letters.dead_letter_app, name="dead-letter")
controls.add_to(jobs.job_app, queues.queue_app)
app.add_typer(schedules.schedule_app, name="schedule")
app.add_typer(events.event_app, name="event")
app.add_typer(webhooks.webhook_app, name="webhook")
app.command("setup-link")(accounts.setup_link)
app.add_typer(accounts.user_app, name="user")
app.add_typer(accounts.token_app, name="token")
app.add_typer(database.db_app, name="db")
app.command("doctor")(doctor.doctor)


@app.command("version")
def version() -> None:
    """Prints the version."""
    from importlib import metadata

    say(metadata.version("m-desk"))


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """M Desk: a desk for background jobs."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command and exits."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    sys.exit(run(arguments))


def run(arguments: Sequence[str]) -> int:
    """Runs one command; answers its exit code."""
    try:
        code = app(args=_words(arguments), prog_name="m", standalone_mode=False)
    except Exception as error:
        if "--debug" in arguments[:1]:
            raise
        return _report(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _words(arguments: Sequence[str]) -> list[str]:
    """`job:run` is another spelling of `job run`."""
    words = list(arguments)
    for place, word in enumerate(words):
        if not word.startswith("-"):
            noun, colon, verb = word.partition(":")
            return [*words[:place], noun, verb, *words[place + 1 :]] if colon and verb else words
    return words


def _report(error: Exception) -> int:
    if isinstance(error, BrokenPipeError):
        with contextlib.suppress(OSError):
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
            )  # the reader left: flush to nowhere
        return FAILED
    if isinstance(error, errors.DeskError):
        complain(error.message)
        return CONFIGURATION if isinstance(error, CONFIGURATION_ERRORS) else FAILED
    if isinstance(error, typer.Abort):
        return INTERRUPTED
    if hasattr(error, "format_message"):
        return _report_usage(error)
    complain(f"{type(error).__name__}: {error} (a mistake in the desk; `m --debug …` shows where)")
    return FAILED


def _report_usage(error: Any) -> int:
    """What typer refused. A noun without a verb is answered with its help."""
    text: str = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(text + "\n")
    else:
        complain(text)
    return int(getattr(error, "exit_code", FAILED))


if __name__ == "__main__":
    main()
