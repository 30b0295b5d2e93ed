"""`m event …`: tell what happened elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands.output import say
from worker.commands.setting import with_engine

if TYPE_CHECKING:
    from worker.engine import Engine

event_app = typer.Typer(help="Publish events.", no_args_is_help=True)


@event_app.command("publish")
def publish(
    event_type: Annotated[str, typer.Argument(metavar="TYPE", help="Such as invoice.paid.")],
    data: Annotated[str, typer.Option(help="A JSON object.")] = "{}",
    doctype: Annotated[str | None, typer.Option(help="The type of the document it is about.")] = None,
    doc_id: Annotated[str | None, typer.Option(help="The id of that document.")] = None,
) -> None:
    """Records an event and prints its id; webhooks and jobs that wait for it get it within a moment."""
    from worker import strict_json
    from worker.accounts.actor import cli_actor
    from worker.errors import Invalid

    given = strict_json.loads(data, "data")
    if not isinstance(given, dict):
        raise Invalid({"data": "must be a JSON object"})
    named = {name: value for name, value in (("doctype", doctype), ("doc_id", doc_id)) if value}
    wish: dict[str, Any] = {"event_type": event_type, "data": given, **named}

    async def work(engine: Engine) -> str:
        from worker.events import actions

        async with engine.database.transaction() as session:
            return (await actions.publish(session, wish, actor=cli_actor())).event_id

    say(with_engine(work))
