"""``memspan doctor``: every check takes the path a real call takes, so that "all is well" means that memory works."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import typer

from memspan.cli import options as o
from memspan.cli import output
from memspan.config import Config, Database
from memspan.errors import MemspanError
from memspan.reports import Check

LEAST_FREE = 200 * 1024**2
LEAST_SQLITE = (3, 35)


def doctor(
    namespace: o.Namespace = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    reranker: o.Reranker = None,
    json: o.Json = False,
) -> None:
    """Check that memory works here: Python, SQLite, the models, a real add and search, your store, the disk."""
    config = Config.load(store=store, encoder=encoder, reranker=reranker, namespace=namespace)
    report((check for name, examine in CHECKS for check in _examined(name, examine, config)), json=json)


def report(found: Iterable[Check], *, json: bool) -> None:
    """Show each check as it is made, or all as one JSON document; exits with 1 where any has failed."""
    checks: list[Check] = []
    for check in found:
        checks.append(check)
        if not json:
            _show(check)
    failed = sum(not check.ok for check in checks)
    if json:
        output.emit({"ok": not failed, "checks": [asdict(check) for check in checks]})
    else:
        typer.echo(f"{output.plural(failed, 'problem')} found" if failed else "All is well.")
    if failed:
        raise typer.Exit(1)


def _examined(name: str, examine: Callable[[Config], Iterator[Check]], config: Config) -> Iterator[Check]:
    try:
        yield from examine(config)
    except MemspanError as error:
        yield Check(name=name, ok=False, detail=error.problem, mend=error.mend)
    except (OSError, ImportError) as error:
        mend = "install memspan again (pip install --force-reinstall memspan)" if isinstance(error, ImportError) else ""
        yield Check(name=name, ok=False, detail=f"{type(error).__name__}: {error}", mend=mend or "see the message")


def _memspan(config: Config) -> Iterator[Check]:
    """Which memspan this is, with which optional packages."""
    extras: dict[str, list[str]] = {}
    for needed in metadata.requires("memspan") or ():
        if found := re.match(r"([\w.-]+).*\bextra\s*==\s*['\"]([\w-]+)", needed):
            package, extra = found.groups()
            extras.setdefault(extra, []).append(f"{package} {_installed(package)}")
    told = "; ".join(f"{extra}: {', '.join(packages)}" for extra, packages in sorted(extras.items()))
    yield Check(name="memspan", ok=True, detail=f"{metadata.version('memspan')}; {told}")


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _python(config: Config) -> Iterator[Check]:
    detail = f"{platform.python_version()} at {sys.executable}"
    yield Check(name="python", ok=sys.version_info >= (3, 11), detail=detail, mend="use Python 3.11 or newer")


def _sqlite(config: Config) -> Iterator[Check]:
    import sqlite3

    new_enough = sqlite3.sqlite_version_info >= LEAST_SQLITE
    mend = "use a Python built with a newer SQLite (python.org, conda, uv)"
    yield Check(name="sqlite", ok=new_enough, detail=f"SQLite {sqlite3.sqlite_version}", mend=mend)
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE VIRTUAL TABLE probe USING fts5(text)")
        yield Check(name="fts5", ok=True, detail="full-text search is built in")
    except sqlite3.OperationalError as error:
        yield Check(
            name="fts5", ok=False, detail=str(error), mend="use a Python whose SQLite has FTS5 (python.org, uv)"
        )
    finally:
        connection.close()


def _disk(config: Config) -> Iterator[Check]:
    """The store's directory can be written, and the disk under it has room."""
    if isinstance(config.store, Database):
        return
    place = config.store
    while not place.exists():
        place = place.parent
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        with tempfile.NamedTemporaryFile(dir=place, prefix=".memspan-doctor-"):
            yield Check(name="directory", ok=True, detail=f"{place} can be written")
    else:
        mend = "give this user the right to write there, or name another directory with --store"
        yield Check(name="directory", ok=False, detail=f"{place} cannot be written", mend=mend)
    free = shutil.disk_usage(place).free
    detail = f"{free / 1024**3:.1f} GiB free"
    yield Check(name="disk", ok=free >= LEAST_FREE, detail=detail, mend="free some space, or move the store")


def _engine(config: Config) -> Iterator[Check]:
    """Add, search, context, delete and verify in a store that is thrown away, with the encoder the user has."""
    from memspan.memory import Memory

    with (
        tempfile.TemporaryDirectory(prefix="memspan-doctor-") as folder,
        Memory(Path(folder, "store"), config=replace(config, store=Path(folder, "store"), reranker="none")) as memory,
    ):
        started = time.perf_counter()
        memory.add("The spare key hangs behind the blue door.")
        memory.add("The train to Porto leaves at nine.")
        encoder = memory.stats()["encoder"]
        named = f"{encoder['id']}, {encoder['dim']} dimensions" if encoder else "none: keywords only"
        yield Check(name="encoder", ok=True, detail=f"{named}, {_since(started)}")

        hits = memory.search("where is the spare key?", k=1, explain=True)
        right = bool(hits) and "spare key" in hits[0].text
        channels = ", ".join(hits[0].channels or ()) if hits else ""
        detail = f"found the right one of two by {channels}" if right else "did not find what was just stored"
        yield Check(name="search", ok=right, detail=detail, mend="please report this with the output of doctor --json")

        context = memory.context("where is the spare key?", budget=200)
        fits = bool(context.citations) and context.tokens <= 200
        detail = f"{context.tokens} of 200 tokens, {output.plural(len(context.citations), 'citation')}"
        yield Check(name="context", ok=fits, detail=detail, mend="please report this with the output of doctor --json")

        memory.compact()
        report = memory.verify()
        yield _views(memory.stats(), "views")
        yield Check(name="verify", ok=report["ok"], detail=_problems(report), mend="please report this")


def server(config: Config) -> Iterator[Check]:
    """The server of a store that lies on one, and a real add, search and erase there, of which nothing is left."""
    if not isinstance(config.store, Database):
        return
    from memspan import opening, postgres
    from memspan.memory import Memory

    ready = True
    for check in postgres.examine(config.store.url):
        ready = ready and (check.ok or check.name not in NEEDED)
        yield check
    if not ready:
        return
    place, namespace = config.store.url, f"doctor {uuid.uuid4()}"
    if not opening.exists(config.store):
        yield Check(name="memory there", ok=True, detail="nobody opened it yet: who does first decides on its encoder")
        return
    started = time.perf_counter()
    try:
        with Memory(place, encoder=None, namespace=namespace, reranker=None, config=config) as memory:
            key = memory.add("The spare key hangs behind the blue door.").ids[0]
            found = [hit.id for hit in memory.search("where is the spare key?", k=1)] == [key]
            left = memory.erase(key).segments == 1 and not memory.search("where is the spare key?")
        detail = f"added, found and erased in {_since(started)}" if found and left else "did not find what it stored"
        yield Check(name="memory there", ok=found and left, detail=detail, mend="please report this with doctor --json")
    finally:
        postgres.forget(place, namespace)


def _reranker(config: Config) -> Iterator[Check]:
    """Search with the reranker the user has, where there is one, in a store without an encoder that is thrown away."""
    from memspan.memory import Memory

    with Memory(":memory:", encoder=None, config=config) as memory:
        reranker = memory.stats()["reranker"]
        if reranker is None:
            yield Check(name="reranker", ok=True, detail="none")
            return
        memory.add("The spare key hangs behind the blue door.")
        memory.add("The key of the sonata is minor.")
        started = time.perf_counter()
        hits = memory.search("where is the spare key?", explain=True)
        taken = _since(started)
        failure = memory.stats()["reranker"]["failure"]
        told = ", ".join(f"{(hit.channels or {}).get('rerank', 0):.3f}" for hit in hits)
        detail = failure or f"{reranker['id']}, first use in {taken}; it gave the two texts {told}"
        mend = "mend what the message says; until then searches answer as without a reranker"
        yield Check(name="reranker", ok=failure is None, detail=detail, mend=mend)


def _store(config: Config) -> Iterator[Check]:
    """The user's own store, where there is one: it opens, answers, and its views are in order. Nothing is changed."""
    if o.nothing_at(config.store):
        yield Check(name="store", ok=True, detail=f"none yet at {config.store}")
        return
    from memspan.memory import Memory

    with Memory(namespace=config.namespace, reranker=None, config=config) as memory:
        held = memory.stats()
        detail = f"{held['segments']:,} segments, schema {held['schema']}, at {held['path']}"
        yield Check(name="store", ok=True, detail=detail)
        yield _pending(held)
        yield _backup(held)
        yield from () if isinstance(config.store, Database) else _copies(config.store)
        yield from _tokens(held)
        if held["segments"]:
            started = time.perf_counter()
            memory.search("is there anything?", k=1, threshold=1.0)  # what is not returned does not count as used
            yield Check(name="store answers", ok=True, detail=f"first search in {_since(started)}")
        yield _views(memory.stats(), "store views")
        report = memory.verify(log_only=True)
        detail = f"{held['log']['entries']:,} entries, each following from the one before" if report["ok"] else ""
        mend = "run memspan verify for all of it, and restore a backup of before (memspan restore)"
        yield Check(name="store log", ok=report["ok"], detail=detail or _problems(report), mend=mend)


def _pending(held: dict[str, Any]) -> Check:
    """Whether all is encoded: what waits is found by its words alone."""
    waiting, encoder = held["pending"], held["encoder"]
    stuck = waiting and encoder is not None and not encoder["active"]
    mend = "run memspan compact with the encoder the store was made with; until then words alone find them"
    return Check(name="store queue", ok=not stuck, detail=f"{waiting:,} waiting to be encoded", mend=mend)


def _backup(held: dict[str, Any]) -> Check:
    """When the store was backed up last, and whether that backup is still where it was put."""
    from memspan import backups

    last = held["backup"]
    if last is None:
        return Check(name="store backup", ok=True, detail="none was made yet; memspan backup DIR makes one")
    age = datetime.now(UTC) - datetime.fromisoformat(last["at"])
    old = "today" if age.days < 1 else f"{output.plural(age.days, 'day')} ago"
    detail = f"backup {last['number']} in {last['path']}, {old}"
    try:
        there = any(kept.number == last["number"] for kept in backups.kept(last["path"]))
    except MemspanError as error:
        there, detail = False, f"{detail}: {error.problem}"
    mend = f"bring that disk back, or make another: memspan backup {last['path']}"
    return Check(name="store backup", ok=there, detail=detail if there else f"{detail}; it is not there now", mend=mend)


def _copies(store: Path) -> Iterator[Check]:
    """Copies from before an upgrade, in which is what has been deleted since."""
    copies = sorted(file.name for file in store.glob("ledger.db.before-*"))
    if copies:
        detail = f"{', '.join(copies)} from before an upgrade: remove it once you trust the new version; what is erased"
        yield Check(name="store copies", ok=True, detail=f"{detail} from the memory since is still in it")


def _tokens(held: dict[str, Any]) -> Iterator[Check]:
    """How the store keeps token activations, and whether all of them are there."""
    from memspan.activations.tokens import FITTING

    encoder, kept = held["encoder"], held["activations"]
    if encoder is None:
        return
    level = encoder.get("tokens", "none")
    detail = (
        f"{kept['tensors']:,} matrices at {level}, {kept['bytes'] / 1024**2:.1f} MiB" if level != "none" else "none"
    )
    if level == "none" and encoder["id"] in FITTING:
        detail += "; memspan reencode adds them: searches find more"
    yield Check(
        name="store tokens", ok=not kept["lost"], detail=detail, mend="run memspan compact: it makes them again"
    )


def _views(held: dict[str, Any], name: str) -> Check:
    """No view has failed, no search has left one out, and the encoder has not failed."""
    failures = {view: found["failure"] for view, found in held["views"].items()}
    failures["search"] = held["search_failure"]
    failures["encoder"] = held["encoder"] and held["encoder"]["failure"]
    bad = [f"{part}: {failure}" for part, failure in failures.items() if failure]
    detail = "; ".join(bad) or ", ".join(
        f"{view} {found['rows'] + found['tail']:,} rows" for view, found in held["views"].items()
    )
    return Check(name=name, ok=not bad, detail=detail, mend="run memspan rebuild; no memory is lost by a broken view")


def _problems(report: dict[str, Any]) -> str:
    return "; ".join(map(str, report["problems"])) or "every hash agrees"


def _since(started: float) -> str:
    return f"{(time.perf_counter() - started) * 1000:.0f} ms"


def _show(check: Check) -> None:
    mark, hue = ("ok  ", "green") if check.ok else ("FAIL", "red")
    typer.secho(mark, fg=o.color(hue), bold=True, nl=False)
    typer.echo(f"  {check.name:<14} {output.line(check.detail)}")
    if not check.ok and check.mend:
        typer.echo(f"      {'':<14} {output.line(check.mend)}")


CHECKS: tuple[tuple[str, Callable[[Config], Iterator[Check]]], ...] = (
    ("memspan", _memspan),
    ("python", _python),
    ("sqlite", _sqlite),
    ("directory", _disk),
    ("encoder", _engine),
    ("reranker", _reranker),
    ("server", server),
    ("store", _store),
)
NEEDED = ("server", "pgvector", "schema")
"""What has to be in order before a memory on a server can be tried."""
