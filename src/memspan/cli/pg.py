"""``memspan pg``: a PostgreSQL database made ready for memories, brought up to date, examined."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from memspan.cli import options as o
from memspan.cli import output
from memspan.cli.doctor import report, server
from memspan.config import SCHEMES, Config, Database
from memspan.errors import InvalidInput

pg = typer.Typer(help="Make a PostgreSQL database ready for memories, and look after it.", no_args_is_help=True)

Dsn = Annotated[
    str | None,
    typer.Argument(metavar="DSN", help="postgresql://USER@HOST:PORT/DATABASE; else the store.", show_default=False),
]


@pg.command()
def init(
    dsn: Dsn = None,
    distribute: Annotated[
        bool, typer.Option("--distribute", help="Have Citus spread it by namespace.", show_default=False)
    ] = False,
    role: Annotated[
        str | None,
        typer.Option("--role", metavar="NAME", help="A login role to restrict to namespaces.", show_default=False),
    ] = None,
    json: o.Json = False,
) -> None:
    """Make the tables, the restricted role memspan_tenant and its policies. What is there stays.

    Run it as the role that is to own the store. What this role may not do is printed, for one who may.
    """
    from memspan import postgres

    done = postgres.init(_url(dsn), distribute=distribute, role=role)
    if json:
        output.emit(asdict(done))
        return
    applied = ", ".join(map(str, done.migrations)) or "none, it is up to date"
    typer.echo(f"migrations applied: {applied}")
    if done.distributed:
        typer.echo(f"distributed: {', '.join(done.distributed)}")
    typer.echo(f"members of memspan_tenant: {output.line(', '.join(done.members)) or 'none'}")
    if done.to_run:
        typer.secho("\nThis role may not do the rest. Have one who may, in this database, run:", err=True)
        for statement in done.to_run:
            typer.echo(f"{statement};")


@pg.command()
def migrate(dsn: Dsn = None, json: o.Json = False) -> None:
    """Bring the tables up to date. Opening a store as its owner does so too."""
    from memspan import postgres

    applied = postgres.migrate(_url(dsn))
    if json:
        output.emit({"migrations": list(applied)})
    else:
        typer.echo(f"migrations applied: {', '.join(map(str, applied)) or 'none, it is up to date'}")


@pg.command()
def doctor(dsn: Dsn = None, json: o.Json = False) -> None:
    """Check the server, its extensions and settings, the store, its roles; add, search and erase there."""
    report(server(Config.load(store=_url(dsn))), json=json)


def _url(dsn: str | None) -> str:
    place = Config.load(store=dsn).store
    if not isinstance(place, Database):
        mend = f"give it as {SCHEMES[0]}USER@HOST:PORT/DATABASE, or set MEMSPAN_STORE to that"
        raise InvalidInput("DSN", "is no address of a database", mend=mend)
    return place.url
