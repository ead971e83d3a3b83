"""mem0's filters in ours: what may be asked there, said so that ``memspan.filtering`` means the same by it.

    {"user_id": "ana"}  {"user_id": "*"}                     equal; anything but nothing
    {"created_at": {"gte": "2026-01-01"}}                    when it was said, or where nobody told, when it was stored
    {"categories": {"in": ["travel", "food"]}}               one of its categories
    {"metadata": {"topic": "tea"}}  {"topic": "tea"}         a key of the metadata
    {"AND": [{"user_id": "ana"}, {"OR": [...]}, {"NOT": [...]}]}

A name that mem0 does not know is a key of the metadata, whatever it means elsewhere here: ``namespace`` too, so that no
filter reaches another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from memspan.archives.mem0 import after
from memspan.errors import InvalidFilter, InvalidInput
from memspan.filtering import MAX_DEPTH
from memspan.segmenting import parse_time, shown

WHOSE: Final = ("user_id", "agent_id", "run_id")
"""What says whose a memory is, here and there. ``app_id`` says it there only, and is metadata here."""
ENTITIES: Final[Mapping[str, str]] = {"user": "user_id", "agent": "agent_id", "app": "app_id", "run": "run_id"}
_NAMES: Final[Mapping[str, str]] = {
    **{name: name for name in (*WHOSE, "role", "id")},
    "app_id": "metadata.app_id",
    "actor_id": "speaker",
    "memory": "text",
    "keywords": "text",
    "memory_ids": "id",
    "updated_at": "recorded_at",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What ``Memory`` is asked for, in its own words."""

    filters: dict[str, Any] | None
    include_superseded: bool = False


def asked(
    filters: Mapping[str, Any] | None,
    also: Mapping[str, Any] | None = None,
    *,
    show_expired: bool | None = None,
    latest_only: bool | None = None,
    anybody: bool = False,
) -> Asked:
    """``filters`` and ``also``, both of mem0, as one, and what of the past is to be seen.

    Raises InvalidInput, unless ``anybody``, where nothing says whose memories are meant: as mem0 does, so that nobody
    gets those of everybody by leaving an id out.
    """
    if not anybody and not (_says_whose(filters) or _says_whose(also)):
        mend = 'name one, such as {"user_id": "ana"}, or "*" for any'
        raise InvalidInput("filters", "must hold one of user_id, agent_id, run_id, app_id", mend=mend)
    parts = [translated(filters), translated(also)]
    old = latest_only is False
    now = datetime.now(UTC).isoformat()
    if show_expired or old:
        parts.append({"state": None})
    if show_expired and not old:
        parts += [_open("valid_from", "lte", now), _open("valid_to", "gt", now)]
    if old and not show_expired:
        parts.append(_open("expires_at", "gt", now))
    return Asked(filters=_all([part for part in parts if part]), include_superseded=bool(show_expired) or old)


def translated(filters: object, depth: int = 0) -> dict[str, Any] | None:
    """A filter of mem0 as one of ours; None where it asks for nothing. Raises InvalidFilter."""
    if filters is None:
        return None
    if not isinstance(filters, Mapping):
        raise InvalidFilter("filters", f"is a {type(filters).__name__}", mend='give an object like {"user_id": "ana"}')
    if depth > MAX_DEPTH:
        raise InvalidFilter("filters", f"is nested deeper than {MAX_DEPTH} levels", mend="flatten it")
    parts: list[dict[str, Any]] = []
    for name, wanted in filters.items():
        if name in ("AND", "OR", "NOT"):
            parts += _joined(name, wanted, depth)
        elif name == "metadata":
            if not isinstance(wanted, Mapping):
                raise InvalidFilter("filters.metadata", f"is a {type(wanted).__name__}", mend="give an object of keys")
            parts += [part for key, value in wanted.items() for part in _conditions(f"metadata.{key}", value)]
        else:
            parts += _named(name, wanted)
    return _all(parts)


def day_before(expires_at: datetime | None) -> str | None:
    """The last day on which it is found: what ``memspan.archives.mem0.expiry`` makes that time of."""
    return None if expires_at is None else (expires_at - timedelta(microseconds=1)).date().isoformat()


def between(start: str | None, end: str | None) -> dict[str, Any] | None:
    """A filter of mem0 for what was made from one time to another; a day ends with its last moment."""
    wanted: dict[str, Any] = {}
    if start is not None:
        wanted["gte"] = start
    if end is not None:
        try:
            wanted["lt"] = after(date.fromisoformat(end)).isoformat()
        except ValueError:
            wanted["lte"] = end
    return {"created_at": wanted} if wanted else None


def _says_whose(filters: object) -> bool:
    if not isinstance(filters, Mapping):
        return False
    within = [part for kind in ("AND", "OR") for part in _listed(filters.get(kind))]
    return any(filters.get(name) is not None for name in ENTITIES.values()) or any(map(_says_whose, within))


def _listed(wanted: object) -> Sequence[Any]:
    return [wanted] if isinstance(wanted, Mapping) else wanted if isinstance(wanted, (list, tuple)) else []


def _joined(kind: str, wanted: object, depth: int) -> list[dict[str, Any]]:
    if not isinstance(wanted, (Mapping, list, tuple)):
        mend = f'write {{"{kind}": [{{...}}, {{...}}]}}'
        raise InvalidFilter(f"filters.{kind}", "needs a list of filters", mend=mend)
    parts = [translated(part, depth + 1) for part in _listed(wanted)]
    if kind == "AND":
        return [part for part in parts if part]
    return [{kind: [part or {} for part in parts]}]


def _named(name: str, wanted: object) -> list[dict[str, Any]]:
    """What is asked of a field of mem0's."""
    if name in ENTITIES.values():
        return _conditions(_NAMES[name], _as_text(wanted))
    if name == "created_at":
        return [
            {"OR": [{"occurred_at": each}, {"occurred_at": None, "recorded_at": each}]} for each in _operations(wanted)
        ]
    if name == "expiration_date":
        return [{"expires_at": {op: _days(value)}} for each in _operations(wanted) for op, value in each.items()]
    if name in ("categories", "category_ids"):
        return [_category(op, value) for each in _operations(wanted) for op, value in each.items()]
    known = _NAMES.get(name)
    return _conditions(known or (name if name.startswith("metadata.") else f"metadata.{name}"), wanted)


def _conditions(field: str, wanted: object) -> list[dict[str, Any]]:
    return [{field: each} for each in _operations(wanted)]


def _operations(wanted: object) -> Iterator[dict[str, Any]]:
    """Each comparison by itself, so that none takes the place of another."""
    if isinstance(wanted, Mapping):
        if not wanted:
            yield {}
        for operator, value in wanted.items():
            yield {"contains" if operator == "icontains" else operator: value}
    elif isinstance(wanted, (list, tuple)):
        yield {"in": wanted}
    elif wanted == "*":
        yield {"ne": None}
    else:
        yield {"eq": wanted}


def _as_text(wanted: object) -> object:
    """Ids as texts: mem0 takes numbers for them too."""
    if isinstance(wanted, Mapping):
        return {operator: _as_text(value) for operator, value in wanted.items()}
    if isinstance(wanted, (list, tuple)):
        return [_as_text(value) for value in wanted]
    return str(wanted) if isinstance(wanted, (int, float)) and not isinstance(wanted, bool) else wanted


def _days(value: object) -> object:
    """Days as the times after them, by which they are compared."""
    if isinstance(value, (list, tuple)):
        return [_days(each) for each in value]
    if isinstance(value, str):
        moment = parse_time(value, "filters.expiration_date")
        return None if moment is None else after(moment.date()).isoformat()
    return value


def _category(operator: str, value: object) -> dict[str, Any]:
    wanted = value if isinstance(value, (list, tuple)) else [value]
    either = [{field: {"contains": each}} for each in wanted for field in ("metadata.categories", "category")]
    if operator == "ne" and value is None:
        return {"OR": [{field: {"ne": None}} for field in ("metadata.categories", "category")]}
    if operator in ("eq", "in", "contains"):
        return {"OR": either}
    if operator in ("ne", "nin"):
        return {"NOT": either}
    raise InvalidFilter("filters.categories", f"{shown(operator)} cannot be asked of it", mend="use in, contains or ne")


def _open(field: str, operator: str, now: str) -> dict[str, Any]:
    return {"OR": [{field: None}, {field: {operator: now}}]}


def _all(parts: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    return {"AND": list(parts)} if len(parts) > 1 else parts[0] if parts else None
