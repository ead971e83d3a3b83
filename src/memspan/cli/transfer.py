"""The command by which a whole store goes from one place to another: copy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memspan.cli import options as o
from memspan.cli import output
from memspan.cli.encryption import KeyFile
from memspan.config import Config, key_in
from memspan.records import as_dict
from memspan.reports import Copied


def copy(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A store: a directory, or postgresql://...")],
    target: Annotated[str, typer.Argument(metavar="DST", help="Where its copy goes: the same.")],
    verify_only: Annotated[
        bool, typer.Option("--verify-only", help="Only compare the two, and write nothing.", show_default=False)
    ] = False,
    key_file: KeyFile = None,
    new_key_file: Annotated[
        Path | None,
        typer.Option(
            "--new-key-file", metavar="FILE", help="Holds the key of the copy; else that of SRC.", show_default=False
        ),
    ] = None,
    plaintext: Annotated[
        bool,
        typer.Option("--plaintext", help="Let the copy of an encrypted store stand in clear.", show_default=False),
    ] = False,
    json: o.Json = False,
) -> None:
    """Copy a whole store, between a directory and Postgres too, while others go on reading and writing it.

    Interrupted, it goes on when it is run again; run again after that, it takes over what has changed since, deletions
    too. Nobody can open the copy until it is whole and was compared. Exit code 1 if anything is not the same.
    """
    from memspan import transfer

    given = Config.load(key_file=key_file).secret() if key_file is None else key_in(key_file, "--key-file")
    new = None if new_key_file is None else key_in(new_key_file, "--new-key-file")
    try:
        with output.progress("Copying", show=not json) as advance:
            done = transfer.copy(
                source,
                target,
                key=given,
                target_key=new,
                plaintext=plaintext,
                verify_only=verify_only,
                progress=advance,
            )
    except KeyboardInterrupt:
        said = "Interrupted. What was copied is safe; run the same command again to go on."
        typer.secho(said, err=True, fg=o.color("yellow"))
        raise
    output.emit(as_dict(done)) if json else _show(done, verify_only)
    if done.differences:
        raise typer.Exit(1)


def _show(done: Copied, verify_only: bool) -> None:
    for difference in done.differences:
        typer.secho(output.line(difference), err=True, fg=o.color("red"))
    held = f"{output.plural(done.segments, 'segment')} in {output.plural(done.namespaces, 'namespace')}"
    moment = done.at.isoformat(timespec="seconds")
    if done.differences:
        print(f"{done.target} is not the same as {done.source} was at {moment}")
        return
    came = "" if verify_only else f"; {output.plural(done.brought, 'version')} came, {done.removed:,} segments went"
    print(f"{done.target} is the same as {done.source} was at {moment}: {held}{came}")
    if done.behind:
        print(f"{done.source} has changed {done.behind:,} times since; run it again to take that over")
