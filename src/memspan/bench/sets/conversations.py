"""The readers of conversations: LoCoMo, RealTalk, BEAM, QMSum, LongMemEval."""

from __future__ import annotations

import json
import re
from collections.abc import Collection as Ids
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from memspan.bench.sets.base import Ask, Item, Read, collection, files, time

ADVERSARIAL = 5  # the category of LoCoMo whose questions the conversation does not answer

_EVIDENCE = re.compile(r"D(\d+):(\d+)")
_SAID = re.compile(r"D(\d+):(\d+)(?:\s*-\s*D(\d+):(\d+))?")
_INDEX = re.compile(r"\s*->->\s*[\d,N/A]*\s*\Z")
_MARK = re.compile(r"\{[^{}]*\}")


def locomo(data: Path) -> Read:
    """Maharana et al., ACL 2024. A turn with a picture has its caption appended."""
    found = files(data / "locomo", "*.json")
    collections = []
    for file in found:
        for entry in json.loads(file.read_bytes()):
            items = tuple(_locomo_turns(entry["conversation"]))
            session = {item.id: item.session or "" for item in items}
            asked = []
            for one in entry["qa"]:
                gold, category = tuple(evidence(one["evidence"], session)), int(one["category"])
                sessions = tuple(dict.fromkeys(session[id] for id in gold))
                asked.append(Ask(one["question"], gold, str(category), category != ADVERSARIAL, sessions=sessions))
            collections.append(collection(str(entry["sample_id"]), items, asked))
    return found, collections


def evidence(listed: Iterable[str], known: Ids[str]) -> list[str]:
    """The gold ids of a LoCoMo question, repaired: split at ``;``, ``,`` and white space, zero padding dropped.

    What then is not an id in ``known`` is dropped, as is an id named twice; the order is kept.
    """
    found = []
    for part in (part for entry in listed for part in re.split(r"[;,\s]+", entry)):
        if match := _EVIDENCE.fullmatch(part):
            found.append(f"D{int(match[1])}:{int(match[2])}")
    return [id for id in dict.fromkeys(found) if id in known]


def _locomo_turns(conversation: dict[str, Any]) -> Iterator[Item]:
    for number in _sessions(conversation):
        when = time(conversation.get(f"session_{number}_date_time"), "%I:%M %p on %d %B, %Y")
        for turn in conversation[f"session_{number}"]:
            yield Item(turn["dia_id"], _captioned(turn, "text"), turn["speaker"], f"session {number}", when)


def realtalk(data: Path) -> Read:
    """Lee et al., 2025, chats of people."""
    found = files(data / "realtalk", "Chat_*.json")
    collections = []
    for file in found:
        chat = json.loads(file.read_bytes())
        items = tuple(_realtalk_turns(chat))
        order = [item.id for item in items]
        asked = (Ask(one["question"], tuple(_said(one["evidence"], order)), str(one["category"])) for one in chat["qa"])
        collections.append(collection(file.stem, items, asked))
    return found, collections


def _realtalk_turns(chat: dict[str, Any]) -> Iterator[Item]:
    for number in _sessions(chat):
        for turn in chat[f"session_{number}"]:
            text = _captioned(turn, "clean_text")
            if text.strip():
                when = time(turn["date_time"], "%d.%m.%Y, %H:%M:%S")
                yield Item(turn["dia_id"], text, turn["speaker"], f"session {number}", when)


def _said(listed: Iterable[str], order: Sequence[str]) -> list[str]:
    """The ids in ``listed``, however glued; of a range all from its first to its last, in ``order``."""
    places = {id: place for place, id in enumerate(order)}
    found: list[str] = []
    for match in _SAID.finditer(" ; ".join(listed)):
        first, last = f"D{int(match[1])}:{int(match[2])}", match[3] and f"D{int(match[3])}:{int(match[4])}"
        if last and first in places and last in places:
            found += order[places[first] : places[last] + 1]
        else:
            found += [first, last] if last else [first]
    return found


def _sessions(chat: dict[str, Any]) -> list[int]:
    return sorted(int(match[1]) for key in chat if (match := re.fullmatch(r"session_(\d+)", key)))


def _captioned(turn: dict[str, Any], key: str) -> str:
    caption = turn.get("blip_caption")
    return f"{turn[key]} [shares {caption}]" if caption else str(turn[key])


def beam(data: Path) -> Read:
    """Tavakoli et al., 2025, chats of 100K tokens. A question of ``abstention`` is one the chat does not answer."""
    chats = files(data / "beam" / "100K", "*/chat.json")
    chats.sort(key=lambda file: (len(file.parent.name), file.parent.name))
    found, collections = [], []
    for file in chats:
        questions = file.with_name("probing_questions") / "probing_questions.json"
        found += [file, questions]
        items = tuple(_messages(json.loads(file.read_bytes())))
        known = {item.id for item in items}
        asked = (
            _probing(one["question"], ability, one.get("source_chat_ids"), known)
            for ability, listed in json.loads(questions.read_bytes()).items()
            for one in listed
        )
        collections.append(collection(file.parent.name, items, asked))
    return found, collections


def _messages(batches: Iterable[dict[str, Any]]) -> Iterator[Item]:
    for batch in batches:
        session, when = f"batch {batch['batch_number']}", None
        for message in (message for turn in batch["turns"] for message in turn):
            when = time(message.get("time_anchor"), "%B-%d-%Y") or when
            role, text = message["role"], message["content"]
            text = _INDEX.sub("", text) if role == "user" else text
            if text.strip():
                yield Item(str(message["id"]), text, role, session, when)


def _probing(question: str, ability: str, ids: Any, known: Ids[str]) -> Ask:
    groups = {}
    if isinstance(ids, dict):
        groups = {str(name): tuple(str(id) for id in _flat(part) if str(id) in known) for name, part in ids.items()}
    return Ask(question, tuple(str(id) for id in _flat(ids)), ability, ability != "abstention", groups)


def _flat(ids: Any) -> Iterator[Any]:
    """What is in lists and dicts of lists, however deep; nothing in None."""
    if isinstance(ids, (list, dict)):
        for inner in ids.values() if isinstance(ids, dict) else ids:
            yield from _flat(inner)
    elif ids is not None:
        yield ids


def qmsum(data: Path) -> Read:
    """Zhong et al., NAACL 2021, meetings."""
    found = files(data / "qmsum", "val.jsonl")
    collections = []
    for number, line in enumerate(found[0].read_text(encoding="utf-8").splitlines()):
        meeting = json.loads(line)
        items = []
        for place, turn in enumerate(meeting["meeting_transcripts"]):
            if text := " ".join(_MARK.sub(" ", turn["content"]).split()):
                items.append(Item(str(place), text, turn["speaker"], "meeting"))
        asked = (
            Ask(one["query"], tuple(str(n) for first, last in spans for n in range(int(first), int(last) + 1)), kind)
            for kind in ("general", "specific")
            for one in meeting[f"{kind}_query_list"]
            if (spans := one.get("relevant_text_span"))
        )
        collections.append(collection(f"meeting {number}", items, asked))
    return found, collections


def longmemeval(data: Path) -> Read:
    """Wu et al., ICLR 2025: each question has a history of its own. Judged by turn, those marked ``has_answer``, and by
    session, ``answer_session_ids``. Its questions without an answer (``_abs``) name sessions and no turn, and are left
    out, as its authors do. All turns are stored, those of the assistant too.
    """
    (file, *_) = files(data / "longmemeval", "longmemeval_s*.json")
    collections = []
    for one in json.loads(file.read_bytes()):
        if one["question_id"].endswith("_abs"):
            continue
        items: list[Item] = []
        gold: list[str] = []
        heard: set[str] = set()
        history = zip(one["haystack_session_ids"], one["haystack_dates"], one["haystack_sessions"], strict=True)
        for session, date, turns in history:
            if session in heard:
                continue
            heard.add(session)
            when = time(re.sub(r"\s*\(\w+\)", "", date), "%Y/%m/%d %H:%M")
            for number, turn in enumerate(turns, start=1):
                if turn["content"].strip():
                    items.append(Item(f"{session}_{number}", turn["content"], turn["role"], session, when))
                    gold += [items[-1].id] if turn.get("has_answer") else []
        sessions = tuple(id for id in dict.fromkeys(one["answer_session_ids"]) if id in heard)
        ask = Ask(one["question"], tuple(gold), one["question_type"], sessions=sessions)
        collections.append(collection(one["question_id"], items, [ask]))
    return [file], collections
