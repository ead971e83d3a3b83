"""Pickles read as data: plain containers, and NumPy arrays of plain numbers. Nothing is imported, nothing is called.

``pickle.Unpickler`` with a list of allowed names is not enough: five bytes have it clear 64 GiB for its memo, an array
gets the memory its shape asks for, and what is allowed can be changed by the pickle (BUILD sets attributes). So the
operations (``pickletools`` documents them) are interpreted here, those that data needs, and a name in the file is
looked up in a table of what makes an array, a kind of numbers, or bytes. Everything else is refused by its name.

Protocols 0 to 5, of NumPy 1 and 2. Memory stays within some twenty times the size of the file, whatever is in it.
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from memspan.errors import InvalidInput
from memspan.segmenting import shown

FEWEST_OPERATIONS = 100_000
BYTES_PER_OPERATION = 8  # of a file that holds texts and vectors: in fact some hundred

_MARK: Final = object()


@dataclass(slots=True)
class Numbers:
    """An array: its state comes after it. Nothing is made of it before ``array``."""

    kind: Any = None
    shape: Any = None
    across: Any = False
    raw: Any = None

    def array(self) -> NDArray[Any]:
        """The array, when its shape and kind agree with its bytes. Raises InvalidInput."""
        if not isinstance(self.kind, Kind):
            raise _refused(f"an array of {type(self.kind).__name__}")
        kind = np.dtype(self.kind.order + self.kind.name)
        shape, raw = self.shape, self.raw
        if not isinstance(shape, tuple) or not all(type(each) is int and each >= 0 for each in shape):
            raise _refused(f"an array of the shape {shown(shape)}")
        if not isinstance(raw, (bytes, bytearray)) or len(raw) != prod(shape) * kind.itemsize:
            held = len(raw) if isinstance(raw, (bytes, bytearray)) else 0
            raise _refused(f"an array of the shape {shown(shape)} of {kind} in {held:,} bytes")
        return np.frombuffer(raw, kind).reshape(shape, order="F" if self.across in (True, "F") else "C")


@dataclass(slots=True)
class Kind:
    """A kind of plain numbers; its byte order comes after it."""

    name: str
    order: str = "<"


_NDARRAY: Final = object()
_KINDS: Final = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"})


def _array(*given: Any) -> Numbers:
    if not given or given[0] is not _NDARRAY:
        raise _refused("an array that is no numpy.ndarray")
    return Numbers()


def _from_buffer(raw: Any, kind: Any, shape: Any, across: Any) -> Numbers:
    return Numbers(kind, shape, across, raw)


def _kind(name: Any = None, *_: Any) -> Kind:
    if not isinstance(name, str) or name not in _KINDS:
        raise _refused(f"numpy.dtype({shown(name)})")
    return Kind(name)


def _encoded(text: Any = None, encoding: Any = None) -> bytes:
    """How the protocols before 3 write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _refused("_codecs.encode of something else than bytes")
    return text.encode("latin1")


def _empty(*given: Any) -> bytes:
    if given:
        raise _refused("bytes of something")
    return b""


_NAMES: Final[Mapping[tuple[str, str], Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _kind,
    ("_codecs", "encode"): _encoded,
    ("__builtin__", "bytes"): _empty,
    ("builtins", "bytes"): _empty,
}
_CALLED: Final = frozenset({_array, _from_buffer, _kind, _encoded, _empty})

_PLAIN: Final = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE",
    "BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_CONSTANTS: Final[Mapping[str, Callable[[], Any]]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
_SIZES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def unpickled(path: Path) -> Any:
    """What a pickle holds: None, bool, int, float, str, bytes, list, tuple, dict, and ``Numbers``.

    Raises InvalidInput naming what it refused, or that the file is no pickle.
    """
    size = path.stat().st_size
    if not size:
        raise InvalidInput("path", f"{path.name} is empty", mend="name another file")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        try:
            with refusing(path):
                return _Reading(FEWEST_OPERATIONS + size // BYTES_PER_OPERATION).run(raw)
        except InvalidInput:
            raise
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
            problem = f"{path.name} is no whole pickle ({type(error).__name__}: {str(error)[:100]})"
            raise InvalidInput("path", problem, mend="it was cut short, or damaged") from error


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """What was refused, with the name of the file it is in."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput("path", f"{path.name} {error.problem.partition(': ')[2]}", mend=error.mend) from None


def _refused(what: str) -> InvalidInput:
    mend = "only plain containers and NumPy arrays of plain numbers are read: a pickle could run any program"
    return InvalidInput("path", f"holds {what}, which was refused", mend=mend)


class _Reading:
    """The stack and the memo of a pickle while it is read."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, raw: mmap.mmap) -> Any:
        for count, (operation, argument, _) in enumerate(pickletools.genops(raw)):  # type: ignore[arg-type]
            if count > self._most:
                raise _refused(f"over {self._most:,} operations")
            name = operation.name
            if name in _PLAIN:
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name]())
            elif name == "STOP":
                break
            elif name not in ("PROTO", "FRAME"):
                self._do(name, argument)
        (value,) = self._stack
        return value

    def _do(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "APPEND":
                value = stack.pop()
                self._top(list).append(value)
            case "APPENDS":
                values = self._marked()
                self._top(list).extend(values)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._top(dict)[_key(key)] = value
            case "SETITEMS":
                pairs = _pairs(self._marked())
                self._top(dict).update(pairs)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack[-_SIZES[name] :] = [tuple(stack[-_SIZES[name] :])]
            case "TUPLE":
                stack.append(tuple(self._marked()))
            case "LIST":
                stack.append(self._marked())
            case "DICT":
                stack.append(_pairs(self._marked()))
            case "POP":
                stack.pop()
            case "POP_MARK":
                self._marked()
            case "DUP":
                stack.append(stack[-1])
            case "GLOBAL":
                module, _, attribute = argument.partition(" ")
                stack.append(_named(module, attribute))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(_named(module, attribute))
            case "REDUCE":
                given, maker = stack.pop(), stack.pop()
                if not callable(maker) or maker not in _CALLED or not isinstance(given, tuple):
                    raise _refused(f"a call of {type(maker).__name__}")
                stack.append(maker(*given))
            case "BUILD":
                _build(stack[-2], stack.pop())
            case _:
                raise _refused(f"the operation {name}")

    def _top(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise _refused(f"items for a {type(self._stack[-1]).__name__}")
        return self._stack[-1]

    def _marked(self) -> list[Any]:
        """What was pushed since the last mark, which goes too."""
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise IndexError("there is no mark")
        values = self._stack[at + 1 :]
        del self._stack[at:]
        return values


def _pairs(values: list[Any]) -> dict[Any, Any]:
    return {_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)}


def _key(value: Any) -> Any:
    """A key that can be looked up at once: hashing nested tuples may never end."""
    if not isinstance(value, (str, int, float, bytes)) and value is not None:
        raise _refused(f"a {type(value).__name__} as a key")
    return value


def _named(module: Any, attribute: Any) -> Any:
    if not isinstance(module, str) or not isinstance(attribute, str) or (module, attribute) not in _NAMES:
        raise _refused(f"{str(module)[:100]}.{str(attribute)[:100]}")
    return _NAMES[module, attribute]


def _build(value: Any, state: Any) -> None:
    """Give an array or a kind of numbers the state that comes after it."""
    if isinstance(value, Numbers) and isinstance(state, tuple) and len(state) == 5:
        _, value.shape, value.kind, value.across, value.raw = state
    elif isinstance(value, Kind) and isinstance(state, tuple) and len(state) >= 5:
        if state[1] not in ("<", ">", "|", "=") or any(each is not None for each in state[2:5]):
            raise _refused("a numpy.dtype of several fields")
        value.order = state[1]
    else:
        raise _refused(f"a state for a {type(value).__name__}")
