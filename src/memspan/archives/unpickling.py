"""Pickles read as data: plain containers, and what stands for the objects the caller knows. Nothing is imported, and
nothing but the caller's own functions is called.

``pickle.Unpickler`` with a list of allowed names is not enough: five bytes have it clear 64 GiB for its memo, an array
gets the memory its shape asks for, and what is allowed can be changed by the pickle (BUILD sets attributes). So the
operations (``pickletools`` documents them) are interpreted here, those that data needs, and a name in the file is
looked up in the caller's table. Everything else is refused by its name.

All protocols, 0 to 5. Memory stays within some twenty times the size of the pickle, whatever is in it.
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

FEWEST_OPERATIONS = 100_000
BYTES_PER_OPERATION = 8  # of a pickle that holds texts and vectors: in fact some hundred
ANY = "*"

Names = Mapping[tuple[str, str], Callable[..., Any]]
"""By module and attribute, what makes the value that stands for a call of this name; (package, ANY) is of every name
in a package. It must be safe for whatever arguments."""


class Refused(ValueError):
    """What a pickle holds that is no data, or that it is no whole pickle: the end of a sentence about it."""


def refusal(what: str) -> Refused:
    """Of what a pickle holds, by its name."""
    return Refused(f"holds {what}, which was refused")


class Stand:
    """What stands where an object of some library would: it only holds its ``state``, which may come after it."""

    state: Any = None

    def __init__(self, *_: object) -> None: ...

    def take(self, state: Any) -> None:
        self.state = state


@dataclass(frozen=True, slots=True)
class _Name:
    """A name that is known; ``make`` is what it calls."""

    make: Callable[..., Any]


_MARK: Final = object()

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


def unpickled(raw: bytes | mmap.mmap, names: Names) -> Any:
    """What a pickle holds: None, bool, int, float, str, bytes, list, tuple, dict, and what ``names`` makes.

    Raises Refused, which names what was refused.
    """
    try:
        return _Reading(FEWEST_OPERATIONS + len(raw) // BYTES_PER_OPERATION, names).run(raw)
    except Refused:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise Refused(f"is no whole pickle ({type(error).__name__}: {str(error)[:100]})") from error


class _Reading:
    """The stack and the memo of a pickle while it is read."""

    def __init__(self, most: int, names: Names) -> None:
        self._most = most
        self._names = names
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, raw: bytes | mmap.mmap) -> Any:
        for count, (operation, argument, _) in enumerate(pickletools.genops(raw)):  # type: ignore[arg-type]
            if count > self._most:
                raise refusal(f"over {self._most:,} operations")
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
            case "EMPTY_SET":
                stack.append(self._named("builtins", "set").make())
            case "ADDITEMS":
                values = self._marked()
                self._top(set).update(map(_key, values))
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
                stack.append(self._named(module, attribute))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(self._named(module, attribute))
            case "REDUCE" | "NEWOBJ":
                given, known = stack.pop(), stack.pop()
                if not isinstance(known, _Name) or not isinstance(given, tuple):
                    raise refusal(f"a call of a {type(known).__name__}")
                stack.append(known.make(*given))
            case "BUILD":
                state = stack.pop()
                self._top(Stand).take(state)
            case _:
                raise refusal(f"the operation {name}")

    def _named(self, module: Any, attribute: Any) -> _Name:
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise refusal(f"a name that is a {type(attribute).__name__} in a {type(module).__name__}")
        make = self._names.get((module, attribute)) or self._names.get((module.partition(".")[0], ANY))
        if make is None:
            raise refusal(f"{module[:100]}.{attribute[:100]}")
        return _Name(make)

    def _top(self, kind: type) -> Any:
        """What lies on top, which must be of this kind to take what is given to it."""
        if not isinstance(self._stack[-1], kind):
            raise refusal(f"{'a state' if kind is Stand else 'items'} for a {type(self._stack[-1]).__name__}")
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
        raise refusal(f"a {type(value).__name__} as a key")
    return value
