"""The readers of corpora of passages: MuSiQue, HotpotQA and 2Wiki in HippoRAG's files, Cranfield, BEIR's layout."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memspan.bench.sets.base import Absent, Ask, Item, Read, collection, files

_ABSTRACT = re.compile(r"<docno>(.*?)</docno>\s*<title>(.*?)</title>.*?<text>(.*?)</text>", re.DOTALL)
_TOPIC = re.compile(r"<num>.*?</num>\s*<title>(.*?)</title>", re.DOTALL)


def hipporag(name: str, data: Path) -> Read:
    """Multi-hop questions over all passages of all of them (github.com/OSU-NLP-Group/HippoRAG, reproduce/dataset):
    MuSiQue (Trivedi et al., TACL 2022), HotpotQA (Yang et al., EMNLP 2018), 2WikiMultihopQA (Ho et al., COLING 2020).

    A corpus is a list of titles and texts, or of each title its sentences. Items are numbered as they stand there.
    """
    found, collections = [], []
    for corpus in files(data / "hipporag", f"{name}*_corpus.json"):
        questions = corpus.with_name(corpus.name.replace("_corpus", ""))
        if not questions.is_file():
            raise Absent("data", f"{corpus.parent} has no {questions.name}")
        found += [questions, corpus]
        passages = json.loads(corpus.read_bytes())
        if isinstance(passages, dict):
            parts = [(title, "".join(sentences)) for title, sentences in passages.items()]
        else:
            parts = [(passage["title"], passage["text"]) for passage in passages]
        items = [Item(str(number), text, title=title) for number, (title, text) in enumerate(parts) if text.strip()]
        by_title: dict[str, list[str]] = {}
        by_text: dict[tuple[str, str], str] = {}
        for item in items:
            by_title.setdefault(item.title or "", []).append(item.id)
            by_text[item.title or "", item.text] = item.id
        asked = [
            Ask(entry["question"], tuple(sorted(_supporting(entry, by_title, by_text), key=int)), "multi-hop")
            for entry in json.loads(questions.read_bytes())
        ]
        collections.append(collection(questions.stem, items, asked))
    return found, collections


def _supporting(entry: dict[str, Any], titles: dict[str, list[str]], texts: dict[tuple[str, str], str]) -> set[str]:
    """The passages that an entry is answered by: MuSiQue marks them, the others name their titles, and a title that
    several passages bear is told by the text that the entry has of it."""
    if "paragraphs" in entry:
        marked = ((part["title"], part["paragraph_text"]) for part in entry["paragraphs"] if part["is_supporting"])
        return {texts[part] for part in marked}
    context = dict(entry.get("context", ()))
    found: set[str] = set()
    for title in {title for title, _ in entry["supporting_facts"]}:
        said = (texts.get((title, joint.join(context.get(title, ())))) for joint in ("", " "))
        exact = next(filter(None, said), None)
        found |= {exact} if exact else set(titles.get(title, ()))
    return found


def cranfield(data: Path) -> Read:
    """Cleverdon 1967, in TREC's format."""
    found = [data / "cranfield" / name for name in ("cran.all.1400.xml", "cran.qry.xml", "cranqrel.trec.txt")]
    abstracts, topics, judged = (file.read_text(encoding="utf-8") for file in found)
    items = []
    for match in _ABSTRACT.finditer(abstracts):
        id, title, text = (" ".join(part.split()) for part in match.groups())
        if text := text.removeprefix(title).strip():
            items.append(Item(id, text, title=title))
    gold: dict[int, list[str]] = {}
    for line in judged.splitlines():
        topic, _, id, relevance = line.split()
        if int(relevance) > 0:
            gold.setdefault(int(topic), []).append(id)
    questions = (" ".join(text.split()) for text in _TOPIC.findall(topics))
    asked = (Ask(text, tuple(gold.get(place, ())), "topic") for place, text in enumerate(questions, start=1))
    return found, [collection("cranfield", items, asked)]


def beir(name: str, data: Path) -> Read:
    """Any corpus in the layout of BEIR (Thakur et al., NeurIPS 2021): corpus.jsonl, queries.jsonl, and of its qrels
    test.tsv, or what comes first by name. Judgements above 0 are gold. Only questions that are judged there are asked.
    """
    folder = data / name
    qrels = folder / "qrels" / "test.tsv"
    judged = qrels if qrels.is_file() else files(folder / "qrels", "*.tsv")[0]
    found = [folder / "corpus.jsonl", folder / "queries.jsonl", judged]
    items = []
    for entry in _lines(found[0]):
        title, text = (entry.get("title") or "").strip(), (entry.get("text") or "").strip()
        if title or text:
            items.append(Item(str(entry["_id"]), text or title, title=title if text else ""))
    gold: dict[str, list[str]] = {}
    with judged.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if int(row["score"]) > 0:
                gold.setdefault(row["query-id"], []).append(row["corpus-id"])
    asked = [
        Ask(entry["text"], tuple(gold[str(entry["_id"])]), "query")
        for entry in _lines(found[1])
        if str(entry["_id"]) in gold
    ]
    return found, [collection(name, items, asked)]


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())
