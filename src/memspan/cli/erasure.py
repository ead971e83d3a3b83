"""The commands that remove for good and prove it: erase, verify-erasure."""

from __future__ import annotations

import json as plain
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from memspan.cli import options as o
from memspan.cli import output
from memspan.errors import InvalidInput
from memspan.records import Receipt, as_dict

Kept = Annotated[
    Path | None, typer.Option("--receipt", metavar="FILE", help="Write the receipt there too.", show_default=False)
]


def erase(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids to erase.", show_default=False)] = None,
    vacuum: Annotated[
        bool, typer.Option("--vacuum", help="Write the database anew: free space too.", show_default=False)
    ] = False,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Look through all files afterwards.")] = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", show_default=False)] = False,
    receipt: Kept = None,
    filters: o.Filters = None,
    namespace: o.Namespace = None,
    user: o.User = None,
    agent: o.Agent = None,
    run: o.Run = None,
    session: o.Session = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Remove memories for good, those named or all in a scope, and prove it; nothing brings them back.

    Text, history, tensors and index entries go, and what was derived from them. Then every file of the store is looked
    through for what they said. Exit code 1 where a trace is left (see --vacuum), or an id was not there.
    """
    scoped = {name: value for name, value in o.scope(user, agent, run, session).items() if value is not None}
    if ids and (scoped or filters):
        raise InvalidInput("ID", "came together with a scope or filter", mend="give ids, or a scope such as --user ana")
    if not ids and not scoped and namespace is None:
        mend = "give ids, or a scope such as --user ana; to drop a whole store, delete its directory"
        raise InvalidInput("ID", "is missing, and no scope is given", mend=mend)
    if receipt is not None and not verify:
        raise InvalidInput("--receipt", "came together with --no-verify", mend="leave one of the two out")
    if not yes:
        named = ", ".join(f"{name} {value}" for name, value in {"namespace": namespace, **scoped}.items() if value)
        _confirm(output.plural(len(ids), "segment") if ids else f"everything of {named}", bool(filters), json)
    chosen: dict[str, Any] = {"id": ids} if ids else {**scoped, "namespace": namespace}
    with o.open_memory(store, encoder, namespace) as memory, output.progress("Erasing", show=not json) as advance:
        done = memory.erase(**chosen, filters=o.filters_from(filters), vacuum=vacuum, verify=verify, progress=advance)
    told = None if done.receipt is None else _told(done.receipt)
    _keep(receipt, told)
    if json:
        output.emit({**as_dict(done), "receipt": told})
    else:
        also = [f"{done.derived} derived"] if done.derived else []
        also += [f"{done.archived} in archives"] if done.archived else []
        among = f" ({', '.join(also)})" if also else ""
        print(f"{output.plural(done.segments, 'segment')}{among} erased")
        for each in done.due:
            typer.secho(f"not finished yet: {output.line(each)}", err=True, fg=o.color("yellow"))
        if done.receipt is not None:
            _show(done.receipt, vacuum=not vacuum)
    short = bool(ids) and done.segments - done.derived < len(set(ids or ()))
    if short and not json:
        typer.secho("some of these ids were not there", err=True, fg=o.color("yellow"))
    if short or done.due or (done.receipt is not None and not done.receipt.ok):
        raise typer.Exit(1)


def verify_erasure(
    text_file: Annotated[Path, typer.Option("--text-file", metavar="FILE", help="What was erased, one text a line.")],
    operation: Annotated[
        str | None, typer.Option("--operation", metavar="ID", help="What erased it, to say so.", show_default=False)
    ] = None,
    receipt: Kept = None,
    namespace: o.Namespace = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Search every file of the store for what was erased, which you have kept. Exit code 1 where any of it is found."""
    texts = [line for line in o.text_of(text_file, "--text-file").splitlines() if line.strip()]
    if not texts:
        raise InvalidInput("--text-file", f"{text_file} is empty", mend="write what was erased there, one text a line")
    with o.open_memory(store, encoder, namespace) as memory, output.progress("Looking", show=not json) as advance:
        found = memory.verify_erasure(texts, operation=operation, progress=advance)
    told = _told(found)
    _keep(receipt, told)
    if json:
        output.emit(told)
    else:
        _show(found, vacuum=True)
    if not found.ok:
        raise typer.Exit(1)


def _told(receipt: Receipt) -> dict[str, Any]:
    return {"ok": receipt.ok, **as_dict(receipt)}


def _keep(file: Path | None, told: dict[str, Any] | None) -> None:
    """Raises InvalidInput where the file cannot be written."""
    if file is None or told is None:
        return
    try:
        file.expanduser().write_text(plain.dumps(told, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        problem = f"{file} cannot be written ({error.strerror})"
        raise InvalidInput("--receipt", problem, mend="name a file that can be; what was asked for is done") from error


def _show(receipt: Receipt, *, vacuum: bool) -> None:
    """A receipt, for people; ``vacuum``: that may help where something was found."""
    operation = receipt.operation
    if operation is not None:
        print(f"Operation      {operation.id}, {operation.at:%Y-%m-%d %H:%M:%S} UTC")
    if receipt.log_hash is not None:
        print(f"Log            {receipt.log_entries:,} entries, the last {receipt.log_hash}")
    looked = f"{output.plural(len(receipt.files), 'file')}, {receipt.bytes:,} bytes"
    print(f"Looked at      {looked}, for {receipt.needles:,} forms of {output.plural(receipt.texts, 'text')}")
    if receipt.ok:
        print("Found          nothing")
        return
    places = Counter((trace.file, trace.what) for trace in receipt.found)
    first = {(trace.file, trace.what): trace.offset for trace in reversed(receipt.found)}
    for (file, what), count in places.items():
        print(f"Found          {output.line(file)}: {what}, {count} times, first at byte {first[file, what]:,}")
    if vacuum:
        typer.secho("Mend:  erase it again with --vacuum, and no other process reading", err=True)


def _confirm(what: str, filtered: bool, json: bool) -> None:
    if json or not sys.stdin.isatty():
        raise InvalidInput("--yes", "is missing, and nobody can be asked here", mend="add --yes once you are sure")
    if not typer.confirm(f"Erase {what}{' that the filter matches' if filtered else ''}, for good?", err=True):
        raise typer.Exit(1)
