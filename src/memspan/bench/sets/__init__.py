"""The data sets, read from where they lie, in one shape: collections of items, and questions with the items they need.

None of them is part of memspan; ``WHERE`` says where each is to be had. A collection (a chat, a meeting, a corpus of
passages) is a store of its own. A question's gold ids all exist; a question that has none is left out, unless the set
asks it to see who notices that it has no answer. Texts are repaired only where the files are broken or tell more than
the speakers did:

* LoCoMo: malformed evidence, see ``conversations.evidence``.
* RealTalk: glued ids and ranges, "D13:4. D14:4", "D12:3-D12:5".
* BEAM: messages of the user end in the index of their generation, "->-> 1,1", which is cut off.
* Cranfield: judgements count the questions by their place in the file, not by their number there; an abstract repeats
  its title, which is cut off; two are empty.
* QMSum: marks such as {vocalsound} are taken out; turns then empty are left out.

A folder with a corpus.jsonl in it is a set in BEIR's layout by the name of that folder. ``NAME-pooled`` is any set with
all its collections in one store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from memspan.bench.sets import conversations, corpora
from memspan.bench.sets.base import Absent, Ask, Collection, Item, Reader, Set, pooled
from memspan.errors import InvalidInput
from memspan.memory import Memory

__all__ = ["NAMES", "WHERE", "Absent", "Ask", "Collection", "Item", "Set", "load", "names", "remember"]

POOLED = "-pooled"
ROLES = ("user", "assistant")
_HIPPORAG = "into its folder hipporag, from github.com/OSU-NLP-Group/HippoRAG, reproduce/dataset"
WHERE: Mapping[str, str] = {
    "locomo": "put locomo10.json into its folder locomo, from github.com/snap-research/locomo, data/",
    "realtalk": "put Chat_*.json into its folder realtalk, from github.com/danny911kr/REALTALK, data/",
    "beam": "put the chats of 100K tokens into its folder beam/100K, from github.com/mohammadtavakoli78/BEAM, chats/",
    "musique": f"put musique*.json and musique*_corpus.json {_HIPPORAG}",
    "hotpotqa": f"put hotpotqa*.json and hotpotqa*_corpus.json {_HIPPORAG}",
    "2wiki": f"put 2wikimultihopqa.json and 2wikimultihopqa_corpus.json {_HIPPORAG}",
    "cranfield": "put cran.all.1400.xml, cran.qry.xml and cranqrel.trec.txt into its folder cranfield, from "
    "github.com/oussbenk/cranfield-trec-dataset",
    "qmsum": "put val.jsonl into its folder qmsum, from github.com/Yale-LILY/QMSum, data/ALL/jsonl/",
    "longmemeval": "put longmemeval_s.json into its folder longmemeval, from github.com/xiaowu0162/LongMemEval (sha256 "
    "d6f21ea9d60a0d56f34a05b609c79c88a451d2ae03597821ea3d5a9678c3a442)",
}
_READERS: Mapping[str, Reader] = {
    "locomo": conversations.locomo,
    "realtalk": conversations.realtalk,
    "beam": conversations.beam,
    "musique": partial(corpora.hipporag, "musique"),
    "hotpotqa": partial(corpora.hipporag, "hotpotqa"),
    "2wiki": partial(corpora.hipporag, "2wiki"),
    "cranfield": corpora.cranfield,
    "qmsum": conversations.qmsum,
    "longmemeval": conversations.longmemeval,
}
NAMES = tuple(_READERS)


def names(data: Path) -> tuple[str, ...]:
    """NAMES, and those of the folders of ``data`` that are in BEIR's layout."""
    return (*NAMES, *sorted(file.parent.name for file in data.glob("*/corpus.jsonl") if file.parent.name not in NAMES))


def load(name: str, data: Path) -> Set:
    """The set ``name`` of ``names(data)`` in the folder ``data``, which has a folder for each (see WHERE), or
    ``NAME-pooled``.

    Raises InvalidInput naming ``name``, or ``data`` with the file that is wrong and where to get it; Absent where its
    files are not there.
    """
    own = name.removesuffix(POOLED)
    if own not in names(data):
        mend = f"use one of {', '.join(NAMES)}, or a folder of {data} with a corpus.jsonl"
        raise InvalidInput("name", f"{own!r} is no set", mend=mend)
    where = WHERE.get(own, "give it corpus.jsonl, queries.jsonl and qrels/test.tsv, as BEIR has them")
    try:
        files, read = _READERS.get(own, partial(corpora.beir, own))(data)
        digest = hashlib.sha256()
        for file in files:
            digest.update(file.read_bytes())
        found = tuple(read)
    except Absent as error:
        raise Absent("data", error.problem.removeprefix("data: "), mend=where) from None
    except FileNotFoundError as error:
        raise Absent("data", f"there is no {error.filename}", mend=where) from error
    except OSError as error:
        raise InvalidInput("data", f"{error.filename} cannot be read ({error.strerror})", mend=where) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        problem = f"{data} does not hold {own} as it is published ({type(error).__name__}: {error})"
        raise InvalidInput("data", problem, mend=where) from error
    if not any(each.asks for each in found):
        raise InvalidInput("data", f"{data} holds no question of {own} that has evidence", mend=where)
    return Set(name, digest.hexdigest(), (pooled(found),) if name.endswith(POOLED) else found)


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
                memory.add(item.rendered, metadata={"item": item.id}, session=session, wait=False)
    memory.compact()


def _message(item: Item) -> dict[str, Any]:
    said = {"content": item.text, "time": item.when, "metadata": {"item": item.id}}
    return said | ({"role": item.speaker} if item.speaker in ROLES else {"role": "user", "name": item.speaker})
