"""`m setup-link`, `m user …` and `m token …`: who may look and act, said by whoever holds the database."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands.output import printable, say
from worker.commands.setting import read_settings, with_database
from worker.errors import AlreadySetUp

if TYPE_CHECKING:
    from worker.db.session import Database

user_app = typer.Typer(help="People who sign in.", no_args_is_help=True)
token_app = typer.Typer(help="Keys for programs.", no_args_is_help=True)

Role = Annotated[str, typer.Option(help="viewer reads, operator acts, admin does everything.")]


def setup_link(
    if_needed: Annotated[
        bool, typer.Option("--if-needed", help="Print nothing when people are there.")
    ] = False,
) -> None:
    """Prints the address where the first admin is made: it works once, for 15 minutes."""
    base_url = read_settings().base_url

    async def work(database: Database) -> str:
        from worker.accounts import signing_in

        async with database.transaction() as session:
            return await signing_in.setup_link(session, base_url)

    try:
        say(with_database(work))
    except AlreadySetUp:
        if not if_needed:
            raise


@user_app.command("add")
def add_user(
    name: Annotated[str, typer.Argument(help="The name they sign in with.")],
    role: Role = "viewer",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
) -> None:
    """Adds a person. Asks for the password unless it is piped in."""
    from worker.accounts.actor import cli_actor

    password = _password(from_stdin=password_stdin)

    async def work(database: Database) -> None:
        from worker.accounts import actions

        await actions.add_user(database, name, role=role, password=password, actor=cli_actor())

    with_database(work)
    say(f"added {printable(name)} as {role}")


@token_app.command("add")
def add_token(
    name: Annotated[str, typer.Argument(help="The program it is for: a service account of this name.")],
    role: Role = "operator",
    days: Annotated[int | None, typer.Option(min=1, max=3650, help="It expires after so many days.")] = None,
) -> None:
    """Makes a token and prints it, alone: it is shown this once."""
    from worker.accounts.actor import cli_actor

    async def work(database: Database) -> str:
        from worker.accounts import actions
        from worker.db.base import utc_now

        expires_at = utc_now() + timedelta(days=days) if days else None
        async with database.transaction() as session:
            made = await actions.add_token(session, name, role=role, actor=cli_actor(), expires_at=expires_at)
            return made.token

    say(with_database(work))


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask at: pipe it in", param_hint="--password-stdin")
    answer: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return answer
