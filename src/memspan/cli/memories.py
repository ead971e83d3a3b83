"""The commands about single memories: add, ingest, search, context, list, get, update, delete, history, feedback."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from memspan.cli import bulk, output
from memspan.cli import options as o
from memspan.errors import InvalidInput, MissingExtra
from memspan.records import Source, as_dict

Ids = Annotated[list[str], typer.Argument(metavar="ID", help="Ids, as search and list print them.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="An id, as search and list print it.")]
Query = Annotated[
    list[str] | None,
    typer.Argument(metavar="QUERY", help="What to look for; - or nothing reads standard input.", show_default=False),
]


def add(
    text: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="One memory; - or nothing reads standard input.", show_default=False),
    ] = None,
    messages: Annotated[
        str | None,
        typer.Option(
            "--messages",
            metavar="FILE",
            help="A conversation: JSON list of {role, content, name, time}; - for stdin.",
            show_default=False,
        ),
    ] = None,
    category: o.Category = None,
    importance: o.Importance = 0.5,
    meta: o.Metadata = None,
    at: o.When = None,
    kind: o.Kind = None,
    valid_from: o.ValidFrom = None,
    valid_to: o.ValidTo = None,
    expires: o.Expires = None,
    source: Annotated[
        Source | None,
        typer.Option("--source", help="Where it comes from.", show_default=False),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--idempotency-key", metavar="KEY", help="Makes a retry safe.", show_default=False),
    ] = None,
    wait: o.Now = True,
    redact: o.Redact = None,
    namespace: o.Namespace = None,
    user: o.User = None,
    agent: o.Agent = None,
    run: o.Run = None,
    session: o.Session = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Store a text or a conversation. The same content again is counted, not copied."""
    content: Any
    if messages is not None:
        if text:
            raise InvalidInput("--messages", "came together with a text", mend="give one of the two")
        content = o.json_from(messages, "--messages")
        if isinstance(content, dict) and "messages" in content:
            content = content["messages"]
        if not isinstance(content, list):
            raise InvalidInput("--messages", "is not a list", mend='write [{"role": "user", "content": "..."}]')
    else:
        content = o.text_from(text, "TEXT")
    with o.open_memory(store, encoder, namespace, redact=redact, create=True) as memory:
        added = memory.add(
            content,
            **o.scope(user, agent, run, session),
            category=category,
            importance=importance,
            metadata=o.metadata_from(meta),
            occurred_at=at,
            kind=kind,
            valid_from=valid_from,
            valid_to=valid_to,
            expires_at=expires,
            source=source,
            idempotency_key=key,
            wait=wait,
        )
    if json:
        output.emit(as_dict(added))
        return
    for id in added.ids:
        print(id)
    repeated = f", {added.repeated} already there" if added.repeated else ""
    pending = f", {added.pending} waiting to be indexed" if added.pending else ""
    stripped = f", {output.plural(added.stripped, 'recalled context')} taken out" if added.stripped else ""
    skipped = f", {output.plural(added.skipped, 'text')} with nothing new left out" if added.skipped else ""
    told = f"{output.plural(added.added, 'segment')} stored{repeated}{stripped}{skipped}{pending}"
    typer.secho(told, err=True, fg=o.color("green"))


def ingest(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Files and directories.")],
    glob: Annotated[
        list[str] | None,
        typer.Option("--glob", metavar="PATTERN", help="Only files in directories that match.", show_default=False),
    ] = None,
    category: o.Category = None,
    importance: o.Importance = 0.5,
    meta: o.Metadata = None,
    at: o.When = None,
    redact: o.Redact = None,
    kind: o.Kind = None,
    valid_from: o.ValidFrom = None,
    valid_to: o.ValidTo = None,
    expires: o.Expires = None,
    ray: bulk.Ray = None,
    encoders: bulk.Encoders = None,
    gpus: bulk.Gpus = 0.0,
    batch: bulk.Batch = 256,
    text_column: bulk.TextColumn = "text",
    id_column: bulk.IdColumn = None,
    time_column: bulk.TimeColumn = None,
    meta_columns: bulk.MetaColumns = None,
    namespace: o.Namespace = None,
    user: o.User = None,
    agent: o.Agent = None,
    run: o.Run = None,
    session: o.Session = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Store documents: text, Markdown, HTML, source code; PDF and Office files with the extra "documents".

    Each file is one step: ctrl-C keeps what is stored, and running it again goes on, as unchanged files are skipped
    and changed ones replace their older version. Hidden and binary files in directories are left out.
    With --ray the machines of a Ray cluster read and encode, and each row of a .jsonl or .parquet file is a memory.
    """
    metadata = o.metadata_from(meta)
    skipped: dict[str, str] = {}
    files = list(_files(paths, glob or [], skipped, tables=ray is not None))
    if ray is not None:
        given: dict[str, Any] = {"category": category, "importance": importance, "metadata": metadata}
        given |= {"occurred_at": at, "kind": kind, "valid_from": valid_from, "valid_to": valid_to}
        given |= {"expires_at": expires, **o.scope(user, agent, run, session)}
        given |= bulk.work(ray, encoders, gpus, batch, text_column, id_column, time_column, meta_columns)
        with o.open_memory(store, encoder, namespace, redact=redact, create=True, bulk=True) as memory:
            bulk.ingest(memory, paths, files, skipped, given, json=json)
        return
    counts: Counter[str] = Counter()
    interrupted = False
    with o.open_memory(store, encoder, namespace, redact=redact, create=True) as memory:
        try:
            with output.progress("Storing", show=not json) as advance:
                for done, path in enumerate(files):
                    advance(done, len(files), path.name)
                    try:
                        added = memory.add_file(
                            path,
                            **o.scope(user, agent, run, session),
                            category=category,
                            importance=importance,
                            metadata=metadata,
                            occurred_at=at,
                            kind=kind,
                            valid_from=valid_from,
                            valid_to=valid_to,
                            expires_at=expires,
                            wait=False,
                        )
                    except (InvalidInput, MissingExtra, OSError) as error:
                        # One unreadable file must not stop a thousand good ones; a wrong option or a broken store does.
                        if isinstance(error, InvalidInput) and error.argument != "path":
                            raise
                        skipped[str(path)] = str(error)
                        counts["failed"] += 1
                    else:
                        counts["stored" if added.added else "unchanged"] += 1
                        counts["segments"] += added.added
            if memory.stats()["pending"]:
                with output.progress("Indexing", show=not json) as advance:
                    memory.compact(progress=advance)
        except KeyboardInterrupt:
            interrupted = True
        pending = memory.stats()["pending"]
    left = len(files) - counts["stored"] - counts["unchanged"] - counts["failed"]
    if json:
        kept = {name: counts[name] for name in ("stored", "unchanged", "segments")}
        output.emit(kept | {"skipped": skipped, "left": left, "pending": pending, "interrupted": interrupted})
    else:
        for name, reason in list(skipped.items())[:20]:
            typer.secho(f"skipped {output.line(name)}: {output.line(reason)}", err=True, fg=o.color("yellow"))
        if len(skipped) > 20:
            typer.secho(f"... and {len(skipped) - 20} more; --json lists all", err=True, fg=o.color("yellow"))
        print(
            f"{output.plural(counts['stored'], 'file')} stored ({output.plural(counts['segments'], 'new segment')}), "
            f"{counts['unchanged']:,} unchanged, {len(skipped):,} skipped"
        )
    if interrupted:
        typer.secho(
            f"Interrupted. What is counted as stored is safe; {output.plural(left, 'file')} left to store, "
            f"{output.plural(pending, 'segment')} to index. Run the same command again to go on.",
            err=True,
            fg=o.color("yellow"),
        )
        raise typer.Exit(130)
    if not files or any(str(path) in skipped for path in paths):
        raise typer.Exit(1)


def search(
    query: Query = None,
    k: Annotated[int, typer.Option("--k", "-k", help="How many hits at most.")] = 10,
    filters: o.Filters = None,
    threshold: o.Threshold = 0.0,
    as_of: o.AsOf = None,
    valid_at: o.ValidAt = None,
    superseded: o.Superseded = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show each part, and the way there.", show_default=False)
    ] = False,
    recipe: o.Recipe = "default",
    redact: o.Redact = None,
    namespace: o.Namespace = None,
    user: o.User = None,
    agent: o.Agent = None,
    run: o.Run = None,
    session: o.Session = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    reranker: o.Reranker = None,
    json: o.Json = False,
) -> None:
    """Find the memories that answer a question, best first."""
    text = o.text_from(query, "QUERY")
    with o.open_memory(store, encoder, namespace, reranker=reranker) as memory:
        started = time.perf_counter()
        hits = memory.search(
            text,
            k=k,
            **o.scope(user, agent, run, session),
            filters=o.filters_from(filters),
            threshold=threshold,
            as_of=as_of,
            valid_at=valid_at,
            include_superseded=superseded,
            explain=explain,
            recipe=recipe,
            redact=redact,
        )
        milliseconds = (time.perf_counter() - started) * 1000
    if json:
        output.emit({"query": text, "milliseconds": round(milliseconds, 3), "hits": output.segment_dicts(hits)})
    else:
        output.show_hits(hits)
    if not hits:
        nothing(
            "Nothing found",
            "try other words, a lower --threshold, or a wider scope (memspan stats shows what is there)",
            json=json,
        )


def context(
    query: Query = None,
    budget: Annotated[int, typer.Option("--budget", "-b", metavar="TOKENS", help="Never exceeded.")] = 1000,
    order: Annotated[Literal["time", "score"], typer.Option("--order", help="Order of the pieces.")] = "time",
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", metavar="FILE", help="Count by this tokenizer.json.", show_default=False),
    ] = None,
    recipe: o.Recipe = "default",
    threshold: o.Threshold = 0.0,
    as_of: o.AsOf = None,
    redact: o.Redact = None,
    valid_at: o.ValidAt = None,
    superseded: o.Superseded = False,
    filters: o.Filters = None,
    namespace: o.Namespace = None,
    user: o.User = None,
    agent: o.Agent = None,
    run: o.Run = None,
    session: o.Session = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    reranker: o.Reranker = None,
    json: o.Json = False,
) -> None:
    """Pack what answers a question into a token budget, with citations; piped, exactly that text."""
    text = o.text_from(query, "QUERY")
    with o.open_memory(store, encoder, namespace, reranker=reranker) as memory:
        started = time.perf_counter()
        packed = memory.context(
            text,
            budget=budget,
            **o.scope(user, agent, run, session),
            filters=o.filters_from(filters),
            threshold=threshold,
            as_of=as_of,
            valid_at=valid_at,
            include_superseded=superseded,
            order=order,
            tokenizer=tokenizer,
            recipe=recipe,
            redact=redact,
        )
        milliseconds = (time.perf_counter() - started) * 1000
    if json:
        output.emit(as_dict(packed) | {"milliseconds": round(milliseconds, 3)})
    elif packed.citations:
        output.show_context(packed, milliseconds)
    if not packed.citations:
        nothing("Nothing found", "try other words or a wider scope (memspan stats shows what is there)", json=json)


def list_(
    limit: Annotated[int, typer.Option("--limit", help="How many at most.")] = 100,
    after: Annotated[
        str | None,
        typer.Option("--after", metavar="ID", help="Go on after this id.", show_default=False),
    ] = None,
    filters: o.Filters = None,
    as_of: o.AsOf = None,
    valid_at: o.ValidAt = None,
    superseded: o.Superseded = False,
    namespace: o.Namespace = None,
    user: o.User = None,
    agent: o.Agent = None,
    run: o.Run = None,
    session: o.Session = None,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """List memories, newest last, a page at a time."""
    with o.open_memory(store, "none", namespace) as memory:
        segments = memory.get_all(
            **o.scope(user, agent, run, session),
            filters=o.filters_from(filters),
            as_of=as_of,
            valid_at=valid_at,
            include_superseded=superseded,
            limit=limit,
            after=after,
        )
    following = segments[-1].id if segments and len(segments) == limit else None
    if json:
        output.emit({"segments": output.segment_dicts(segments), "after": following})
        return
    output.show_segments(segments)
    if following:
        typer.secho(f"There may be more: --after {following}", err=True, fg=o.color("bright_black"))


def get(
    id: Id,
    document: Annotated[
        bool, typer.Option("--document", help="The id is a document's: print its text.", show_default=False)
    ] = False,
    namespace: o.Namespace = None,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Show one memory, or with --document a whole document, to the character."""
    with o.open_memory(store, "none", namespace) as memory:
        if document:
            whole = memory.document(id)
            output.emit(as_dict(whole)) if json else output.show_text(whole.text)
            return
        segment = memory.get(id)
    if json:
        output.emit(as_dict(segment))
    else:
        output.show_mapping({key: value for key, value in as_dict(segment).items() if value not in (None, [], {})})


def update(
    id: Id,
    text: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="The new text; - reads standard input; none keeps it.", show_default=False),
    ] = None,
    category: o.Category = None,
    importance: Annotated[
        float | None,
        typer.Option("--importance", metavar="0..1", help="How much it matters.", show_default=False),
    ] = None,
    meta: o.Metadata = None,
    at: o.When = None,
    kind: o.Kind = None,
    valid_from: o.ValidFrom = None,
    valid_to: o.ValidTo = None,
    expires: o.Expires = None,
    namespace: o.Namespace = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Write a new version of one memory; history keeps the old one. What is not given stays as it is."""
    changes: dict[str, Any] = {
        "category": category,
        "importance": importance,
        "metadata": o.metadata_from(meta),
        "occurred_at": at,
        "kind": kind,
    }
    times = {"valid_from": valid_from, "valid_to": valid_to, "expires_at": expires}
    changes |= {name: None if value == "none" else value for name, value in times.items() if value is not None}
    if text is None and all(value is None for value in (*changes.values(), *times.values())):
        raise InvalidInput("TEXT", "is missing and nothing else changes", mend="give a new text or an option to change")
    with o.open_memory(store, encoder, namespace) as memory:
        segment = memory.update(id, o.text_from(text, "TEXT") if text else None, **changes)
    if json:
        output.emit(as_dict(segment))
    else:
        print(f"{segment.id} is now version {segment.version}")


def delete(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids to delete.", show_default=False)] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Everything in the scope given by the options.", show_default=False)
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", show_default=False)] = False,
    filters: o.Filters = None,
    namespace: o.Namespace = None,
    user: o.User = None,
    agent: o.Agent = None,
    run: o.Run = None,
    session: o.Session = None,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Take memories away: nothing finds them any more. history keeps them, undo brings them back; erase removes."""
    if bool(ids) == everything:
        problem = "came together with ids" if ids else "is missing, and no id is given"
        raise InvalidInput("--all", problem, mend="give ids, or --all with a scope such as --user ana")
    scoped = {name: value for name, value in o.scope(user, agent, run, session).items() if value is not None}
    if namespace is not None:
        scoped["namespace"] = namespace
    if everything and not scoped:
        raise InvalidInput(
            "--all",
            "needs a scope",
            mend="add --user, --agent, --run, --session or --namespace; to drop a whole store, delete its directory",
        )
    if not everything and (filters or len(scoped) > (namespace is not None)):
        raise InvalidInput("ID", "came together with a scope or filter", mend="give ids, or --all with the scope")
    missing: list[str] = []
    with o.open_memory(store, "none", namespace) as memory:
        if everything:
            if not yes:
                _confirm(", ".join(f"{name} {value}" for name, value in scoped.items()), bool(filters), json)
            deleted = memory.delete_all(**scoped, filters=o.filters_from(filters))
        else:
            deleted = 0
            for id in ids or ():
                found = memory.delete(id)
                deleted += found
                missing.extend([] if found else [id])
    if json:
        output.emit({"deleted": deleted, "not_found": missing})
    else:
        print(f"{output.plural(deleted, 'segment')} deleted")
        for id in missing:
            typer.secho(f"not found: {output.line(id, 80)}", err=True, fg=o.color("yellow"))
    if missing:
        raise typer.Exit(1)


def history(id: Id, namespace: o.Namespace = None, store: o.Store = None, json: o.Json = False) -> None:
    """Show every version of one memory, oldest first."""
    with o.open_memory(store, "none", namespace) as memory:
        events = memory.history(id)
    if json:
        output.emit({"events": [as_dict(event) for event in events]})
    else:
        output.show_history(events)


def feedback(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What was looked for, as one argument.")],
    id: Id,
    useless: Annotated[
        bool, typer.Option("--useless", help="It was of no use to that query.", show_default=False)
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Take back what was said of the two.", show_default=False)
    ] = False,
    namespace: o.Namespace = None,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Say that a memory was of use to a query, or was not; memspan tune learns from it."""
    if useless and forget:
        raise InvalidInput("--forget", "came together with --useless", mend="give one of the two")
    useful = None if forget else not useless
    with o.open_memory(store, "none", namespace) as memory:
        memory.feedback(query, id, useful)
    if json:
        output.emit({"query": query, "id": id, "useful": useful})
    else:
        print(f"{id} {'is not judged any more' if forget else 'was of no use' if useless else 'was of use'}")


def nothing(problem: str, mend: str, *, json: bool) -> None:
    """Say that there is nothing to show, which a JSON document has said already, and end with exit code 1."""
    if not json:
        typer.secho(f"{problem}: {mend}", err=True, fg=o.color("yellow"))
    raise typer.Exit(1)


def _confirm(what: str, filtered: bool, json: bool) -> None:
    asked = f"Delete everything of {what}{' that the filter matches' if filtered else ''}?"
    if json or not sys.stdin.isatty():
        raise InvalidInput("--yes", "is missing, and nobody can be asked here", mend="add --yes once you are sure")
    if not typer.confirm(asked, err=True):
        raise typer.Exit(1)


def _files(paths: list[Path], patterns: list[str], skipped: dict[str, str], *, tables: bool) -> Iterator[Path]:
    """The files to ingest, each once, in order; what is left out goes into ``skipped`` with the reason. ``tables``:
    those whose rows are taken, too."""
    seen: set[Path] = set()
    for path in paths:
        found: Iterator[Path] | list[Path] = _walk(path, patterns, skipped, tables) if path.is_dir() else [path]
        for file in found:
            if (real := file.resolve()) not in seen:
                seen.add(real)
                yield file


def _walk(root: Path, patterns: list[str], skipped: dict[str, str], tables: bool) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        skipped[str(error.filename)] = error.strerror or str(error)

    for directory, folders, names in os.walk(root, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__pycache__")))
        for name in sorted(names):
            file = Path(directory, name)
            relative = file.relative_to(root).as_posix()
            if name.startswith(".") or (
                patterns and not any(fnmatch(name, pattern) or fnmatch(relative, pattern) for pattern in patterns)
            ):
                continue
            if reason := _unfit(file, tables):
                skipped[str(file)] = reason
            else:
                yield file


def _unfit(file: Path, tables: bool) -> str | None:
    """Why a file met in a directory is not worth trying, or None."""
    from memspan.reading import readable

    if not file.is_file():
        return "not a regular file"
    if not os.access(file, os.R_OK):
        return "no right to read it"
    if readable(file) or (tables and bulk.is_table(file)):
        return None
    return "empty" if not file.stat().st_size else "not text"
