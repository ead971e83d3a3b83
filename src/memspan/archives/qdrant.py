"""The folder of a local Qdrant client: ``collection/NAME/storage.sqlite``, in it a table of pickled points.

Points are read for their payloads. A pickle is a program, so this one is run by Python's own unpickler with a short
list of what it may do: make numbers, texts and plain containers, times and UUIDs, and for the classes of qdrant_client
and of NumPy stand-ins that only hold what they are given. Whatever else it names is refused, and nothing is imported.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from memspan.archives.base import Report, attempt
from memspan.archives.tables import columns, database
from memspan.errors import InvalidInput

STORAGE = "storage.sqlite"


def recognises(path: Path) -> bool:
    """Whether such a folder is at ``path``."""
    return (path / "meta.json").is_file() and (path / "collection").is_dir()


def points(path: Path, report: Report) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """The points of all collections, as (where it stands, collection, id, payload), in the order of their writing.

    Raises InvalidInput naming ``path`` where there is no collection in it.
    """
    files = sorted(each for each in (path / "collection").glob(f"*/{STORAGE}") if columns(each, "points") >= {"point"})
    if not files:
        problem = f"{path.name} has no collection of a local Qdrant client"
        raise InvalidInput("path", problem, mend="name the folder that has meta.json and collection in it")
    for file in files:
        with database(file) as connection:
            for number, blob in connection.execute("SELECT rowid, point FROM points ORDER BY rowid"):
                where = f"{file.parent.name}/{STORAGE}[{number}]"
                with attempt(report, where):
                    about = _point(blob)
                    if not isinstance(about["id"], (str, int, uuid.UUID)):
                        raise InvalidInput("point", f"has a {type(about['id']).__name__} as its id")
                    yield where, file.parent.name, str(about["id"]), about.get("payload") or {}


def _point(blob: Any) -> Mapping[str, Any]:
    """The fields of a pickled point. Raises InvalidInput saying what was refused, or that it is none."""
    if not isinstance(blob, bytes):
        raise InvalidInput("point", f"is a {type(blob).__name__}")
    try:
        point = _Points(io.BytesIO(blob)).load()
    except InvalidInput:
        raise
    except (pickle.UnpicklingError, EOFError, LookupError, AssertionError, MemoryError) as error:
        raise InvalidInput("point", f"is no pickle of a point ({type(error).__name__}: {error})") from error
    if not isinstance(point, _Stand) or not isinstance(point.state, dict):
        raise InvalidInput("point", "is none of Qdrant's")
    about: Mapping[str, Any] = point.state["__dict__"]
    return about


class _Stand:
    """What stands where an object of another library would."""

    state: Any = None

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state


_KNOWN: Mapping[tuple[str, str], Any] = {
    ("datetime", "date"): date,
    ("datetime", "datetime"): datetime,
    ("datetime", "timedelta"): timedelta,
    ("datetime", "timezone"): timezone,
    ("uuid", "UUID"): uuid.UUID,
}
_OPCODES = """
ADDITEMS APPEND APPENDS BINBYTES BINBYTES8 BINFLOAT BINGET BININT BININT1 BININT2 BINPUT BINUNICODE BINUNICODE8 BUILD
EMPTY_DICT EMPTY_LIST EMPTY_SET EMPTY_TUPLE FRAME LONG1 LONG_BINGET LONG_BINPUT MARK MEMOIZE NEWFALSE NEWOBJ
NEWTRUE NONE POP POP_MARK PROTO REDUCE SETITEM SETITEMS SHORT_BINBYTES SHORT_BINUNICODE STACK_GLOBAL STOP TUPLE TUPLE1
TUPLE2 TUPLE3
"""
_ALLOWED = {ord(each.code): each.name for each in pickletools.opcodes if each.name in _OPCODES.split()}


_KEYS = {"SETITEM": slice(-2, -1), "SETITEMS": slice(None, None, 2), "ADDITEMS": slice(None)}
"""Where on the stack are the keys that an operation looks up."""


def _checked(load: Callable[[Any], None], keys: slice) -> Callable[[Any], None]:
    def checked(unpickler: _Points) -> None:
        for key in unpickler.stack[keys]:  # the hash of tuples within tuples may never end
            if not isinstance(key, (str, int, float, bytes, type(None))):
                raise InvalidInput("point", f"has a {type(key).__name__} as a key, which is refused")
        load(unpickler)

    return checked


class _Points(pickle._Unpickler):
    """The unpickler that is written in Python: unlike that in C it takes no memory that a file only speaks of."""

    stack: list[Any]
    dispatch = {  # noqa: RUF012
        code: _checked(load, _KEYS[_ALLOWED[code]]) if _ALLOWED[code] in _KEYS else load
        for code, load in pickle._Unpickler.dispatch.items()
        if code in _ALLOWED
    }

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] in ("qdrant_client", "numpy"):
            return _Stand
        if (module, name) not in _KNOWN:
            raise InvalidInput("point", f"asks for {module}.{name}, which is refused")
        return _KNOWN[module, name]
