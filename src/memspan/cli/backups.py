"""The commands by which a store is backed up and brought back: backup, restore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memspan.cli import options as o
from memspan.cli import output
from memspan.config import Config
from memspan.errors import InvalidInput
from memspan.records import as_dict
from memspan.reports import BackedUp

At = Annotated[
    str | None,
    typer.Option(
        "--at", metavar="N|TIME", help="Backup N, or the last one up to a time; else the newest.", show_default=False
    ),
]


def backup(
    path: Annotated[Path, typer.Argument(metavar="DIR", help="The directory of backups; made if there is none.")],
    keep: Annotated[
        int | None,
        typer.Option("--keep", metavar="N", help="Remove all but the newest N afterwards.", show_default=False),
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Only tell which backups there are.", show_default=False)
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Only read a backup whole and compare its checksums.", show_default=False),
    ] = False,
    at: At = None,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Back the store up into a directory, whole, as it is at one moment. Others go on writing meanwhile.

    What an earlier backup there has already is not written again; each can be restored. Nothing is removed unless
    --keep says so: what is erased from the memory is still in the backups of before.
    """
    if list_ or check:
        _look(path, list_, at, json)
        return
    if at is not None:
        raise InvalidInput("--at", "came without --check", mend="a backup is always of now; restore takes --at")
    with o.open_memory(store, "none", None) as memory, output.progress("Backing up", show=not json) as advance:
        done = memory.backup(path, keep=keep, progress=advance)
    output.emit(as_dict(done)) if json else print(f"{_line(done)}, {output.size(done.written)} of it new")


def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="The directory of backups.")],
    at: At = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Open it afterwards and hash everything again.", show_default=False)
    ] = False,
    store: o.Store = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Make the store of a backup anew at --store, which must be new or empty: nothing is restored over something.

    Every chunk is compared with its checksum on the way. With --verify, exit code 1 if anything is wrong.
    """
    from memspan import backups

    target = o.directory(Config.load(store=store).store).absolute()
    with output.progress("Restoring", show=not json) as advance:
        done = backups.restore(source, target, at=at, progress=advance)
    report = None
    if verify:
        with (
            o.open_memory(str(target), encoder, None) as memory,
            output.progress("Verifying", show=not json) as advance,
        ):
            report = memory.verify(progress=advance)
    if json:
        output.emit({"store": str(target), "backup": as_dict(done), "verified": report})
    else:
        print(f"{target} is {_line(done)}")
        if report is not None:
            output.show_mapping(report)
    if report is not None and not report["ok"]:
        raise typer.Exit(1)


def _look(path: Path, list_: bool, at: str | None, json: bool) -> None:
    from memspan import backups

    if list_:
        found = backups.kept(path)
        output.emit([as_dict(each) for each in found]) if json else print(*map(_line, found), sep="\n")
        return
    with output.progress("Checking", show=not json) as advance:
        checked = backups.check(path, at, progress=advance)
    output.emit(as_dict(checked)) if json else print(f"{_line(checked)}: every chunk is as it was written")


def _line(done: BackedUp) -> str:
    moment = done.at.isoformat(timespec="seconds")
    held = f"{output.plural(done.segments, 'segment')}, {output.size(done.bytes)}"
    return f"backup {done.number} in {done.path}, of {moment}: {held}"
