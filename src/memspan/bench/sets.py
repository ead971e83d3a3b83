"""The data sets, read from where they lie, in one shape: collections of items, and questions with the items they need.

None of them is part of memspan; ``WHERE`` says where each is to be had. A collection (a chat, a meeting, a corpus of
passages) is a store of its own. A question's gold ids all exist; a question that has none is left out. Texts are
repaired only where the files are broken or tell more than the speakers did:

* LoCoMo, Maharana et al., ACL 2024: malformed evidence, see ``measures.evidence``.
* RealTalk, Lee et al., 2025 (human chats): glued ids and ranges, "D13:4. D14:4", "D12:3-D12:5".
* BEAM, Tavakoli et al., 2025, chats of 100K tokens: messages of the user end in the index of their generation,
  "->-> 1,1", which is cut off. Abstention has no gold.
* MuSiQue and HotpotQA in the files of HippoRAG: see ``bench.multihop``.
* Cranfield, Cleverdon 1967, in TREC's format: judgements count the questions by their place in the file, not by their
  number there; an abstract repeats its title, which is cut off; two are empty.
* QMSum, Zhong et al., NAACL 2021: marks such as {vocalsound} are taken out; turns then empty are left out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from memspan.bench import locomo, multihop
from memspan.errors import InvalidInput
from memspan.memory import Memory

NAMES = ("locomo", "realtalk", "beam", "musique", "hotpotqa", "cranfield", "qmsum")
WHERE = {
    "locomo": "put locomo10.json into its folder locomo, from github.com/snap-research/locomo, data/",
    "realtalk": "put Chat_*.json into its folder realtalk, from github.com/danny911kr/REALTALK, data/",
    "beam": "put the chats of 100K tokens into its folder beam/100K, from github.com/mohammadtavakoli78/BEAM, chats/",
    "musique": "put musique*.json and musique*_corpus.json into its folder hipporag, from github.com/OSU-NLP-Group/"
    "HippoRAG, reproduce/dataset",
    "hotpotqa": "put hotpotqa*.json and hotpotqa*_corpus.json into its folder hipporag, from github.com/OSU-NLP-Group/"
    "HippoRAG, reproduce/dataset",
    "cranfield": "put cran.all.1400.xml, cran.qry.xml and cranqrel.trec.txt into its folder cranfield, from "
    "github.com/oussbenk/cranfield-trec-dataset",
    "qmsum": "put val.jsonl into its folder qmsum, from github.com/Yale-LILY/QMSum, data/ALL/jsonl/",
}
ROLES = ("user", "assistant")

_SAID = re.compile(r"D(\d+):(\d+)(?:\s*-\s*D(\d+):(\d+))?")
_INDEX = re.compile(r"\s*->->\s*[\d,N/A]*\s*\Z")
_MARK = re.compile(r"\{[^{}]*\}")
_ABSTRACT = re.compile(r"<docno>(.*?)</docno>\s*<title>(.*?)</title>.*?<text>(.*?)</text>", re.DOTALL)
_TOPIC = re.compile(r"<num>.*?</num>\s*<title>(.*?)</title>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Item:
    """What is looked for: a turn of a conversation, or a passage, which alone has a ``title``.

    ``text`` is never blank. ``speaker`` is a name, or "user" or "assistant" where there are only these roles.
    """

    id: str
    text: str
    speaker: str | None = None
    session: str | None = None
    when: datetime | None = None
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """A question; ``gold``: ids of items of its collection, at least one. ``kind``: its category or ability."""

    text: str
    gold: tuple[str, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Collection:
    """Items in order, their ids all different, and the questions about them: one store of its own."""

    id: str
    items: tuple[Item, ...]
    asks: tuple[Ask, ...]


@dataclass(frozen=True, slots=True)
class Set:
    """A data set. ``sha256``: of the bytes of its files, one after the other by name."""

    name: str
    sha256: str
    collections: tuple[Collection, ...]


def load(name: str, data: Path) -> Set:
    """The set ``name`` of NAMES in the folder ``data``, which has a folder for each (see WHERE).

    Raises InvalidInput naming ``name``, or ``data`` with the file that is missing or wrong and where to get it.
    """
    if name not in NAMES:
        raise InvalidInput("name", f"{name!r} is no set", mend="use one of " + ", ".join(NAMES))
    try:
        files, collections = _READERS[name](data)
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    except InvalidInput:
        raise
    except OSError as error:
        raise InvalidInput("data", f"{error.filename} cannot be read ({error.strerror})", mend=WHERE[name]) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        problem = f"{data} does not hold {name} as it is published ({type(error).__name__}: {error})"
        raise InvalidInput("data", problem, mend=WHERE[name]) from error
    found = tuple(collections)
    if not any(collection.asks for collection in found):
        raise InvalidInput("data", f"{data} holds no question of {name} that has evidence", mend=WHERE[name])
    return Set(name, digest, found)


def remember(memory: Memory, collection: Collection) -> None:
    """Add a collection through the public door; each segment's metadata has its ``item``.

    A conversation takes one call a session, whose items must stand together. A passage is its title, a line end, its
    text.
    """
    for (said, session), run in groupby(collection.items, key=lambda item: (item.title is None, item.session)):
        if said:
            memory.add([_message(item) for item in run], session=session)
        else:
            for item in run:
                memory.add(f"{item.title}\n{item.text}", metadata={"item": item.id}, session=session, wait=False)
    memory.compact()


def _message(item: Item) -> dict[str, Any]:
    said = {"content": item.text, "time": item.when, "metadata": {"item": item.id}}
    return said | ({"role": item.speaker} if item.speaker in ROLES else {"role": "user", "name": item.speaker})


# ---------------------------------------------------------------------------------------------------------- the readers

_Read = tuple[list[Path], Iterable[Collection]]


def _locomo(data: Path) -> _Read:
    files = _files("locomo", data / "locomo", "*.json")
    return files, [
        Collection(
            conversation.id,
            tuple(Item(turn.id, turn.text, turn.speaker, turn.session, turn.when) for turn in conversation.turns),
            tuple(Ask(ask.text, ask.gold, str(ask.category)) for ask in conversation.asks if ask.gold),
        )
        for file in files
        for conversation in locomo.load(file)
    ]


def _realtalk(data: Path) -> _Read:
    files = _files("realtalk", data / "realtalk", "Chat_*.json")
    collections = []
    for file in files:
        chat = json.loads(file.read_bytes())
        items = tuple(_chat(chat))
        order = [item.id for item in items]
        asked = ((one["question"], _said(one["evidence"], order), str(one["category"])) for one in chat["qa"])
        collections.append(Collection(file.stem, items, _asks(asked, items)))
    return files, collections


def _chat(chat: dict[str, Any]) -> Iterator[Item]:
    for number in sorted(int(match[1]) for key in chat if (match := re.fullmatch(r"session_(\d+)", key))):
        for turn in chat[f"session_{number}"]:
            caption = turn.get("blip_caption")
            text = f"{turn['clean_text']} [shares {caption}]" if caption else turn["clean_text"]
            if text.strip():
                when = _time(turn["date_time"], "%d.%m.%Y, %H:%M:%S")
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


def _beam(data: Path) -> _Read:
    folder = data / "beam" / "100K"
    chats = _files("beam", folder, "*/chat.json")
    chats.sort(key=lambda file: (len(file.parent.name), file.parent.name))
    files, collections = [], []
    for file in chats:
        questions = file.with_name("probing_questions") / "probing_questions.json"
        files += [file, questions]
        items = tuple(_messages(json.loads(file.read_bytes())))
        asked = (
            (one["question"], [str(id) for id in _flat(one.get("source_chat_ids"))], ability)
            for ability, listed in json.loads(questions.read_bytes()).items()
            for one in listed
        )
        collections.append(Collection(file.parent.name, items, _asks(asked, items)))
    return files, collections


def _messages(batches: Iterable[dict[str, Any]]) -> Iterator[Item]:
    for batch in batches:
        session, when = f"batch {batch['batch_number']}", None
        for message in (message for turn in batch["turns"] for message in turn):
            when = _time(message.get("time_anchor"), "%B-%d-%Y") or when
            role, text = message["role"], message["content"]
            text = _INDEX.sub("", text) if role == "user" else text
            if text.strip():
                yield Item(str(message["id"]), text, role, session, when)


def _flat(ids: Any) -> Iterator[Any]:
    """What is in lists and dicts of lists, however deep; nothing in None."""
    if isinstance(ids, (list, dict)):
        for inner in ids.values() if isinstance(ids, dict) else ids:
            yield from _flat(inner)
    elif ids is not None:
        yield ids


def _multihop(name: str) -> Callable[[Path], _Read]:
    def read(data: Path) -> _Read:
        folder = data / "hipporag"
        _files(name, folder, f"{name}*_corpus.json")
        corpora = [corpus for corpus in multihop.load(folder) if corpus.name.startswith(name)]
        files = [folder / f"{corpus.name}{part}.json" for corpus in corpora for part in ("", "_corpus")]
        return files, [
            Collection(
                corpus.name,
                tuple(_passage(str(number), *passage.split("\n", 1)) for number, passage in enumerate(corpus.passages)),
                tuple(Ask(question, tuple(map(str, gold)), "multi-hop") for question, gold in corpus.questions if gold),
            )
            for corpus in corpora
        ]

    return read


def _cranfield(data: Path) -> _Read:
    files = [data / "cranfield" / name for name in ("cran.all.1400.xml", "cran.qry.xml", "cranqrel.trec.txt")]
    abstracts, topics, judged = (file.read_text(encoding="utf-8") for file in files)
    items = []
    for match in _ABSTRACT.finditer(abstracts):
        id, title, text = (" ".join(part.split()) for part in match.groups())
        if text := text.removeprefix(title).strip():
            items.append(_passage(id, title, text))
    gold: dict[int, list[str]] = {}
    for line in judged.splitlines():
        topic, _, id, relevance = line.split()
        if int(relevance) > 0:
            gold.setdefault(int(topic), []).append(id)
    questions = (" ".join(text.split()) for text in _TOPIC.findall(topics))
    asked = ((text, gold.get(place, []), "topic") for place, text in enumerate(questions, start=1))
    return files, [Collection("cranfield", tuple(items), _asks(asked, items))]


def _qmsum(data: Path) -> _Read:
    file = data / "qmsum" / "val.jsonl"
    collections = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
        meeting = json.loads(line)
        items = []
        for place, turn in enumerate(meeting["meeting_transcripts"]):
            if text := " ".join(_MARK.sub(" ", turn["content"]).split()):
                items.append(Item(str(place), text, turn["speaker"], "meeting"))
        asked = (
            (one["query"], [str(place) for first, last in spans for place in range(int(first), int(last) + 1)], kind)
            for kind in ("general", "specific")
            for one in meeting[f"{kind}_query_list"]
            if (spans := one.get("relevant_text_span"))
        )
        collections.append(Collection(f"meeting {number}", tuple(items), _asks(asked, items)))
    return [file], collections


def _passage(id: str, title: str, text: str) -> Item:
    return Item(id, text, title=title)


def _asks(asked: Iterable[tuple[str, Iterable[str], str]], items: Iterable[Item]) -> tuple[Ask, ...]:
    """Questions with the gold that exists, each id once; those without any are left out."""
    known = {item.id for item in items}
    found = ((text, tuple(id for id in dict.fromkeys(gold) if id in known), kind) for text, gold, kind in asked)
    return tuple(Ask(text, gold, kind) for text, gold, kind in found if gold)


def _files(name: str, folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.glob(pattern))
    if not found:
        raise InvalidInput("data", f"{folder} has no {pattern}", mend=WHERE[name])
    return found


def _time(text: str | None, form: str) -> datetime | None:
    """In UTC, for the files name no zone; None for what is not in ``form``: some chats have anchors of other kinds."""
    try:
        return None if text is None else datetime.strptime(text, form).replace(tzinfo=UTC)
    except ValueError:
        return None


_READERS: dict[str, Callable[[Path], _Read]] = {
    "locomo": _locomo,
    "realtalk": _realtalk,
    "beam": _beam,
    "musique": _multihop("musique"),
    "hotpotqa": _multihop("hotpotqa"),
    "cranfield": _cranfield,
    "qmsum": _qmsum,
}
