"""What is left to do once rows were erased: nothing of them may stay in any file of the store.

The ledger's own files, the views' snapshots, archives that ``prune`` put beside them, backups of migrations. Every step
can be repeated, and what was not finished is due until it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from memspan.activations.arena import MARK
from memspan.archives import cube
from memspan.archives.base import Contents, Header, Item, Tie, refused
from memspan.errors import MemspanError, StoreCorrupt
from memspan.ledger.base import Ledger
from memspan.records import Archived, Edge, Filing, Verdict, Version
from memspan.reports import Problem
from memspan.views.base import SnapshotFiles, View
from memspan.views.vectors import holds

PRUNED = "pruned"  # the directory of archives of what was pruned
LARGEST_HEADER = 1 << 20  # bytes; of an encrypted file the size is not there to be read


@dataclass(slots=True, kw_only=True)
class Scrubbed:
    """Which files were ``rewritten`` or removed, by their names in the store, and what is still ``due``, and why."""

    rewritten: list[str] = field(default_factory=list)
    due: list[str] = field(default_factory=list)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """One step: where it fails it is due, and the others are done all the same."""
        try:
            yield
        except (MemspanError, OSError) as error:
            self.due.append(f"{what}: {error}")


def scrub(
    ledger: Ledger, views: Sequence[View], directory: Path | None, first: dict[str, int] | None = None
) -> Scrubbed:
    """Do what is due. ``first``: the least seq that was erased in each namespace where anything was; None where that is
    not known. The caller has the turn."""
    done, due = Scrubbed(), ledger.due()
    if due is None:
        return done
    namespaces = dict.fromkeys(ledger.namespaces(), 0) if first is None else first
    for view in views:
        with done.step(f"the {view.name} index"):
            for namespace, seq in namespaces.items():
                snapshot = ledger.snapshot(namespace, view.name)
                if snapshot is not None and snapshot.position >= seq and view.compact(namespace):
                    done.rewritten.append(f"views/{view.name}")
            if directory is not None:
                files = SnapshotFiles(ledger, view.name, directory / "views")
                with files.lock():
                    files.sweep()
    for file in cubes(directory):
        with done.step(f"{PRUNED}/{file.name}"):
            if without_erased(ledger, file):
                done.rewritten.append(f"{PRUNED}/{file.name}")
    with done.step("the ledger"):
        done.due += ledger.scrub(vacuum=due.vacuum)
    for file in sorted(directory.glob("ledger.db.before-*")) if directory is not None else ():
        with done.step(file.name):
            file.unlink(missing_ok=True)
            done.rewritten.append(file.name)
    if not done.due:
        ledger.done(due)
    return done


# Archives beside the store


def cubes(directory: Path | None) -> list[Path]:
    """The archives of what was pruned."""
    return [] if directory is None else sorted((directory / PRUNED).glob("*.memspan"))


def records(file: Path) -> Iterator[Archived]:
    """What an archive of our own holds. Raises InvalidInput where any of it cannot be read."""
    problems: list[Problem] = []
    for record in cube.read(file, problems.append):
        if problems:
            raise refused(file, f"holds what cannot be read: {problems[0].problem}")
        if not isinstance(record, (Header, Item, Tie)):
            yield record


def without_erased(ledger: Ledger, file: Path) -> bool:
    """Write an archive anew without what was erased, or remove it where nothing would be left; whether there was
    anything."""
    about = cube.inspect(file)
    gone, documents = _apart(ledger, file, about.namespace)
    if not gone:
        return False
    if not documents:
        file.unlink()
        return True
    contents = Contents(
        header=Header(namespace=about.namespace, vectors=about.vectors),
        records=lambda: (record for record in records(file) if _stays(record, gone, documents)),
        about=about.about,
    )
    cube.write(file, contents)
    return True


def _apart(ledger: Ledger, file: Path, namespace: str) -> tuple[set[str], set[str | None]]:
    """The segments of an archive that were erased, and the documents (None: none) of those that were not."""
    held = [record.segment for record in records(file) if isinstance(record, Version)]
    gone = ledger.erased(namespace, {segment.id for segment in held})
    return gone, {segment.document_id for segment in held if segment.id not in gone}


def _stays(record: Archived, gone: Collection[str], documents: Collection[str | None]) -> bool:
    match record:
        case Version():
            return record.segment.id not in gone
        case Filing():
            return record.id in documents
        case Edge():
            return record.source not in gone and record.target not in gone
        case Verdict():
            return record.older not in gone and record.newer not in gone
        case _:
            return record.id not in gone


# What snapshots still tell


def remaining(ledger: Ledger, directory: Path) -> Iterator[str]:
    """Snapshots that still hold a row that is gone."""
    for view in ("lexical", "vectors", "tree", "graph"):
        files = SnapshotFiles(ledger, view, directory / "views")
        for namespace in ledger.namespaces():
            with suppress(StoreCorrupt), ledger.reading():  # one that cannot be read is rebuilt by whoever needs it
                if (snapshot := ledger.snapshot(namespace, view)) is None:
                    continue
                arrays = files.load(snapshot)
                gone = ~np.isin(arrays["seqs"], ledger.rows(namespace))
                if gone.any() and (view != "vectors" or holds(arrays["graph"], gone)):
                    yield f"views/{snapshot.file}"


def headers(directory: Path) -> Iterator[str]:
    """What files say by their format alone."""
    yield " ".join(("SQLite format 3", MARK.decode(), *cube.MEMBERS, cube.TYPE))
    for file in (directory / "views").glob("*.safetensors"):
        with suppress(OSError), file.open("rb") as opened:
            yield opened.read(min(int.from_bytes(opened.read(8), "little"), LARGEST_HEADER)).decode(errors="replace")


def archived(ledger: Ledger, directory: Path) -> Iterator[Archived]:
    """What archives beside the store hold of what was not erased."""
    for file in cubes(directory):
        gone, documents = _apart(ledger, file, cube.inspect(file).namespace)
        yield from (record for record in records(file) if _stays(record, gone, documents))
