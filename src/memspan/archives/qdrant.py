"""The folder of a local Qdrant client: ``collection/NAME/storage.sqlite``, in it a table of pickled points.

Points are read for their payloads. A pickle is a program, so it is read as data (``memspan.archives.unpickling``):
plain containers and times, and for UUIDs and the classes of qdrant_client and of NumPy what only holds what they are
given.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

from memspan.archives.base import Report, attempt
from memspan.archives.tables import columns, database
from memspan.archives.unpickling import ANY, Names, Refused, Stand, unpickled
from memspan.errors import InvalidInput

STORAGE = "storage.sqlite"


def recognises(path: Path) -> bool:
    """Whether such a folder is at ``path``."""
    return (path / "meta.json").is_file() and (path / "collection").is_dir()


def points(path: Path, report: Report) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """The points of all collections, as (where it stands, collection, id, payload), in the order of their writing. A
    collection that is damaged is reported.

    Raises InvalidInput naming ``path`` where there is no collection in it.
    """
    found = False
    for file in sorted((path / "collection").glob(f"*/{STORAGE}")):
        name = f"{file.parent.name}/{STORAGE}"
        with attempt(report, name), database(file) as connection:
            if "point" not in columns(connection, "points"):
                continue
            found = True
            for number, blob in connection.execute("SELECT rowid, point FROM points ORDER BY rowid"):
                where = f"{name}[{number}]"
                with attempt(report, where):
                    about = _point(blob)
                    if not isinstance(about["id"], (str, int, _Uuid)):
                        raise InvalidInput("point", f"has a {type(about['id']).__name__} as its id")
                    yield where, file.parent.name, str(about["id"]), about.get("payload") or {}
    if not found:
        problem = f"{path.name} has no collection of a local Qdrant client"
        raise InvalidInput("path", problem, mend="name the folder that has meta.json and collection in it")


def _point(blob: Any) -> Mapping[str, Any]:
    """The fields of a pickled point. Raises InvalidInput saying what was refused, or that it is none."""
    if not isinstance(blob, bytes):
        raise InvalidInput("point", f"is a {type(blob).__name__}")
    try:
        point = unpickled(blob, _NAMES)
    except Refused as error:
        raise InvalidInput("point", str(error)) from error
    about = point.state.get("__dict__") if isinstance(point, Stand) and isinstance(point.state, dict) else None
    if not isinstance(about, dict) or "id" not in about:
        raise InvalidInput("point", "is none of Qdrant's")
    return about


class _Uuid(Stand):
    def __str__(self) -> str:
        return str(uuid.UUID(int=self.state["int"]))


def _set() -> set[object]:
    return set()


_NAMES: Final[Names] = {
    ("datetime", "date"): date,
    ("datetime", "datetime"): datetime,
    ("datetime", "timedelta"): timedelta,
    ("datetime", "timezone"): timezone,
    ("uuid", "UUID"): _Uuid,
    ("builtins", "set"): _set,
    ("qdrant_client", ANY): Stand,
    ("numpy", ANY): Stand,
}
