"""The loaders of the data sets, on small invented files of the same shapes, and how a collection is remembered."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from memspan import Memory
from memspan.bench import sets
from memspan.bench.sets import Ask, Collection, Item
from memspan.bench.sets.conversations import evidence
from memspan.errors import InvalidInput


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def only(name: str, data: Path) -> Collection:
    (collection,) = sets.load(name, data).collections
    return collection


def test_locomo_keeps_only_questions_with_evidence_that_exists(tmp_path: Path) -> None:
    turns = [
        {"speaker": "Ada", "dia_id": "D1:1", "text": "I keep bees.", "blip_caption": "a hive"},
        {"speaker": "Bo", "dia_id": "D1:2", "text": "How many?"},
    ]
    qa = [
        {"question": "What does Ada keep?", "evidence": ["D1:01; D1:2"], "category": 4},
        {"question": "Who knows?", "evidence": ["D9:9"], "category": 3},
        {"question": "What does Bo keep?", "evidence": ["D1:1"], "category": 5},
        {"question": "What does Cy keep?", "evidence": [], "category": 5},
    ]
    conversation = {"session_1_date_time": "1:56 pm on 8 May, 2023", "session_1": turns}
    write(tmp_path / "locomo" / "some.json", [{"sample_id": "conv-1", "conversation": conversation, "qa": qa}])
    when = datetime(2023, 5, 8, 13, 56, tzinfo=UTC)
    assert only("locomo", tmp_path) == Collection(
        "conv-1",
        (
            Item("D1:1", "I keep bees. [shares a hive]", "Ada", "session 1", when),
            Item("D1:2", "How many?", "Bo", "session 1", when),
        ),
        (
            Ask("What does Ada keep?", ("D1:1", "D1:2"), "4", sessions=("session 1",)),
            Ask("What does Bo keep?", ("D1:1",), "5", answerable=False, sessions=("session 1",)),
        ),
        (Ask("What does Cy keep?", (), "5", answerable=False),),
    )


@pytest.mark.parametrize(
    ("listed", "repaired"),
    [
        (["D1:3"], ["D1:3"]),
        (["D8:6; D9:17"], ["D8:6", "D9:17"]),
        (["D8:6,D9:17", "D1:3 D8:6"], ["D8:6", "D9:17", "D1:3"]),
        (["D30:05"], ["D30:5"]),
        (["D1:3", "D", "D:11:26"], ["D1:3"]),
        (["D1:4000"], []),
        ([], []),
    ],
)
def test_malformed_evidence_is_repaired_and_ids_that_do_not_exist_are_dropped(
    listed: list[str], repaired: list[str]
) -> None:
    assert evidence(listed, {"D1:3", "D8:6", "D9:17", "D30:5"}) == repaired


@pytest.mark.parametrize(
    ("evidence", "gold"),
    [
        (["D1:1", "D2:1"], ("D1:1", "D2:1")),
        (["D1:2. D2:1"], ("D1:2", "D2:1")),
        (["D1:2-D2:1"], ("D1:2", "D1:4", "D2:1")),
        (["D1:2 - D1:3", "D1:2"], ("D1:2",)),
        (["D2:01", "D1;4", ""], ("D2:1",)),
        (["D1:3", "D7:7"], None),
        ([], None),
    ],
)
def test_realtalk_has_glued_ids_and_ranges_and_turns_that_are_not_there(
    tmp_path: Path, evidence: list[str], gold: tuple[str, ...] | None
) -> None:
    def turn(id: str) -> dict[str, Any]:
        return {"clean_text": f"This is {id}", "speaker": "Ada", "date_time": "29.12.2023, 22:42:04", "dia_id": id}

    chat = {
        "name": {"speaker_1": "Ada", "speaker_2": "Bo"},
        "session_2": [turn("D2:1")],
        "session_1": [turn("D1:1"), turn("D1:2") | {"blip_caption": "a hive"}, turn("D1:4")],
        "events_session_1": {"agent_a": []},
        "qa": [
            {"question": "What?", "answer": "-", "evidence": evidence, "category": 2},
            {"question": "Why?", "answer": "-", "evidence": ["D1:1"], "category": 1},
        ],
    }
    write(tmp_path / "realtalk" / "Chat_1_Ada_Bo.json", chat)
    collection = only("realtalk", tmp_path)
    assert [item.id for item in collection.items] == ["D1:1", "D1:2", "D1:4", "D2:1"]
    when = datetime(2023, 12, 29, 22, 42, 4, tzinfo=UTC)
    assert collection.items[1] == Item("D1:2", "This is D1:2 [shares a hive]", "Ada", "session 1", when)
    assert collection.asks[-1] == Ask("Why?", ("D1:1",), "1")
    assert collection.asks[:-1] == (() if gold is None else (Ask("What?", gold, "2"),))


def test_beam_messages_lose_the_index_of_their_generation_and_gold_comes_in_lists_and_dicts(tmp_path: Path) -> None:
    first = {"role": "user", "id": 0, "time_anchor": "March-15-2024", "content": "I keep bees ->-> 1,1", "index": "1,1"}
    turns = [
        [first, {"role": "assistant", "id": 1, "content": "x ->-> 1"}],
        [{"role": "user", "id": 2, "content": "a ->-> b? ->-> 2,N/A\n"}],
    ]
    later = [[{"role": "user", "id": 3, "content": "And geese", "time_anchor": "soon"}]]
    questions = {
        "abstention": [{"question": "Do I keep cats?"}],
        "event_ordering": [{"question": "In what order?", "source_chat_ids": [2, [0, 2], 77]}],
        "knowledge_update": [{"question": "Bees?", "source_chat_ids": {"original_info": [0], "updated_info": [3]}}],
    }
    for number in ("10", "2"):
        chat = [{"batch_number": 1, "turns": turns}, {"batch_number": 2, "turns": later}]
        write(tmp_path / "beam" / "100K" / number / "chat.json", chat)
        write(tmp_path / "beam" / "100K" / number / "probing_questions" / "probing_questions.json", questions)
    two, ten = sets.load("beam", tmp_path).collections
    assert (two.id, ten.id) == ("2", "10")
    when = datetime(2024, 3, 15, tzinfo=UTC)
    assert two.items == (
        Item("0", "I keep bees", "user", "batch 1", when),
        Item("1", "x ->-> 1", "assistant", "batch 1", when),
        Item("2", "a ->-> b?", "user", "batch 1", when),
        Item("3", "And geese", "user", "batch 2"),
    )
    assert two.asks == (
        Ask("In what order?", ("2", "0"), "event_ordering"),
        Ask("Bees?", ("0", "3"), "knowledge_update", groups={"original_info": ("0",), "updated_info": ("3",)}),
    )
    assert two.unanswered == (Ask("Do I keep cats?", (), "abstention", answerable=False),)


def test_multi_hop_passages_have_titles_and_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "hipporag"
    write(folder / "hotpotqa_train.json", [{"question": "Who?", "supporting_facts": [["B", 0], ["A", 1], ["B", 1]]}])
    write(folder / "hotpotqa_train_corpus.json", {"A": ["One.", " Two."], "B": ["Three.\nFour."]})
    passages = [{"title": "C", "text": "Five."}, {"title": "D", "text": "Six."}]
    paragraphs = [{"title": "D", "paragraph_text": "Six.", "is_supporting": True}]
    write(folder / "musique.json", [{"question": "Where?", "paragraphs": paragraphs}])
    write(folder / "musique_corpus.json", passages)
    assert only("hotpotqa", tmp_path) == Collection(
        "hotpotqa_train",
        (Item("0", "One. Two.", title="A"), Item("1", "Three.\nFour.", title="B")),
        (Ask("Who?", ("0", "1"), "multi-hop"),),
    )
    assert only("musique", tmp_path).asks == (Ask("Where?", ("1",), "multi-hop"),)


def test_2wiki_has_titles_that_several_passages_bear(tmp_path: Path) -> None:
    folder = tmp_path / "hipporag"
    passages = [{"title": "A", "text": "One. Two."}, {"title": "A", "text": "Three."}, {"title": "B", "text": "Four."}]
    asked = [
        {"question": "Who?", "supporting_facts": [["A", 0], ["B", 0]], "context": [["A", ["One.", "Two."]]]},
        {"question": "When?", "supporting_facts": [["A", 0]], "context": [["A", ["Never written."]]]},
        {"question": "Why?", "supporting_facts": [["C", 0]], "context": []},
    ]
    write(folder / "2wikimultihopqa.json", asked)
    write(folder / "2wikimultihopqa_corpus.json", passages)
    collection = only("2wiki", tmp_path)
    assert (collection.id, len(collection.items)) == ("2wikimultihopqa", 3)
    assert [ask.gold for ask in collection.asks] == [("0", "2"), ("0", "1")]


def test_cranfield_judgements_count_the_questions_by_their_place(tmp_path: Path) -> None:
    folder = tmp_path / "cranfield"
    abstract = "<doc>\n<docno>{}</docno>\n<title>{}</title>\n<author>x</author>\n<text>{}</text>\n</doc>\n"
    texts = [("1", "wings of\nbees .", "wings of\nbees .\n  they  beat ."), ("2", "", ""), ("7", "flow", "it flows")]
    write(folder / "cran.all.1400.xml", "".join(abstract.format(*one) for one in texts))
    topics = "".join(
        f"<top>\n<num> {number}</num>\n<title>\nhow {number} ?\n</title>\n</top>\n" for number in (1, 4, 9)
    )
    write(folder / "cran.qry.xml", f"<xml>\n{topics}</xml>")
    write(folder / "cranqrel.trec.txt", "1 0 1 1\n1 0 7 0\n2 0 7 3\n2 0 1 1\n3 0 2 1\n4 0 1 1\n")
    assert only("cranfield", tmp_path) == Collection(
        "cranfield",
        (Item("1", "they beat .", title="wings of bees ."), Item("7", "it flows", title="flow")),
        (Ask("how 1 ?", ("1",), "topic"), Ask("how 4 ?", ("7", "1"), "topic")),
    )


def test_qmsum_spans_name_turns_and_marks_are_taken_out(tmp_path: Path) -> None:
    said = ["Good {vocalsound} morning .", "{pause}", "Bees , then {disfmarker}"]
    meeting = {
        "meeting_transcripts": [{"speaker": "Ada", "content": text} for text in said],
        "general_query_list": [{"query": "Summarize", "answer": "-"}],
        "specific_query_list": [{"query": "Bees?", "relevant_text_span": [["1", "2"]]}],
    }
    write(tmp_path / "qmsum" / "val.jsonl", json.dumps(meeting) + "\n" + json.dumps(meeting) + "\n")
    first, second = sets.load("qmsum", tmp_path).collections
    assert first.items == (Item("0", "Good morning .", "Ada", "meeting"), Item("2", "Bees , then", "Ada", "meeting"))
    assert first.asks == second.asks == (Ask("Bees?", ("2",), "specific"),)
    assert first.id != second.id


def test_longmemeval_gives_each_question_a_history_of_its_own(tmp_path: Path) -> None:
    def asked(id: str) -> dict[str, Any]:
        answer = [
            {"role": "user", "content": "I keep bees.", "has_answer": True},
            {"role": "assistant", "content": " "},
            {"role": "assistant", "content": "Lovely!", "has_answer": False},
        ]
        return {
            "question_id": id,
            "question_type": "single-session-user",
            "question": "What do I keep?",
            "question_date": "2023/05/30 (Tue) 23:40",
            "haystack_session_ids": ["s1", "answer_s2", "s1"],
            "haystack_dates": ["2023/05/20 (Sat) 02:21", "2023/05/21 (Sun) 10:00", "2023/05/20 (Sat) 02:21"],
            "haystack_sessions": [
                [{"role": "user", "content": "Hello"}],
                answer,
                [{"role": "user", "content": "Hello"}],
            ],
            "answer_session_ids": ["answer_s2"],
        }

    write(tmp_path / "longmemeval" / "longmemeval_s.json", [asked("q1"), asked("q2_abs")])
    when = datetime(2023, 5, 21, 10, 0, tzinfo=UTC)
    assert only("longmemeval", tmp_path) == Collection(
        "q1",
        (
            Item("s1_1", "Hello", "user", "s1", datetime(2023, 5, 20, 2, 21, tzinfo=UTC)),
            Item("answer_s2_1", "I keep bees.", "user", "answer_s2", when),
            Item("answer_s2_3", "Lovely!", "assistant", "answer_s2", when),
        ),
        (Ask("What do I keep?", ("answer_s2_1",), "single-session-user", sessions=("answer_s2",)),),
    )


def test_any_folder_in_the_layout_of_beir_is_a_set_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "scifact"
    lines = [
        {"_id": "4", "title": "Bees", "text": "They fly."},
        {"_id": "5", "title": "", "text": "Geese swim.", "metadata": {}},
        {"_id": "6", "title": "Only a title", "text": ""},
        {"_id": "7", "title": "", "text": " "},
    ]
    write(folder / "corpus.jsonl", "\n".join(map(json.dumps, lines)))
    queries = [{"_id": "q1", "text": "Who flies?"}, {"_id": "q2", "text": "Who swims?"}, {"_id": "q3", "text": "Who?"}]
    write(folder / "queries.jsonl", "\n".join(map(json.dumps, queries)) + "\n")
    write(folder / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\nq1\t4\t2\nq1\t5\t0\nq2\t5\t1\nq2\t99\t1\n")
    write(folder / "qrels" / "dev.tsv", "query-id\tcorpus-id\tscore\nq3\t4\t1\n")
    assert sets.names(tmp_path) == (*sets.NAMES, "scifact")
    assert only("scifact", tmp_path) == Collection(
        "scifact",
        (
            Item("4", "They fly.", title="Bees"),
            Item("5", "Geese swim.", title=""),
            Item("6", "Only a title", title=""),
        ),
        (Ask("Who flies?", ("4",), "query"), Ask("Who swims?", ("5",), "query")),
    )
    with Memory(":memory:", encoder="hash") as memory:
        sets.remember(memory, only("scifact", tmp_path))
        assert {str(row.metadata["item"]): row.text for row in memory.get_all()}["5"] == "Geese swim."
    (folder / "queries.jsonl").unlink()
    with pytest.raises(sets.Absent, match="queries"):
        sets.load("scifact", tmp_path)


def test_a_set_is_pooled_into_one_collection_whose_ids_say_where_they_are_from(tmp_path: Path) -> None:
    for name in ("Chat_1", "Chat_2"):
        said = {"clean_text": "I keep bees", "speaker": name, "date_time": "29.12.2023, 22:42:04", "dia_id": "D1:1"}
        asked = {"question": "What?", "evidence": ["D1:1"], "category": 1}
        write(tmp_path / "realtalk" / f"{name}.json", {"session_1": [said], "qa": [asked]})
    collection = only("realtalk-pooled", tmp_path)
    assert [(item.id, item.session) for item in collection.items] == [
        ("Chat_1/D1:1", "Chat_1/session 1"),
        ("Chat_2/D1:1", "Chat_2/session 1"),
    ]
    assert [ask.gold for ask in collection.asks] == [("Chat_1/D1:1",), ("Chat_2/D1:1",)]


@pytest.mark.parametrize("name", sets.NAMES)
def test_a_set_that_is_not_there_is_named_with_where_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(sets.Absent, match=r"^data: .*\w.*into its folder \w.*github\.com"):
        sets.load(name, tmp_path)


@pytest.mark.parametrize("content", ["not json", "[1]", "{}", '{"qa": [], "session_1": [{}]}'])
def test_a_file_of_another_shape_is_refused(content: str, tmp_path: Path) -> None:
    write(tmp_path / "realtalk" / "Chat_1.json", content)
    with pytest.raises(InvalidInput, match=r"^data: .*REALTALK"):
        sets.load("realtalk", tmp_path)


def test_a_corpus_without_its_questions_is_refused(tmp_path: Path) -> None:
    for name in ("hotpotqa_train_corpus", "musique", "musique_corpus"):
        write(tmp_path / "hipporag" / f"{name}.json", [])
    with pytest.raises(InvalidInput, match=r"^data: .*hotpotqa.*HippoRAG"):
        sets.load("hotpotqa", tmp_path)


def test_an_unknown_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"^name: .*locomo"):
        sets.load("imagenet", tmp_path)


def test_a_conversation_is_remembered_with_who_said_it_and_when() -> None:
    when = datetime(2024, 3, 15, tzinfo=UTC)
    items = (
        Item("a", "I keep bees.", "Ada", "one", when),
        Item("b", "How many?", "assistant", "one"),
        Item("c", "I keep bees.", "Ada", "two"),
    )
    with Memory(":memory:", encoder="hash") as memory:
        sets.remember(memory, Collection("x", items, ()))
        found = {str(segment.metadata["item"]): segment for segment in memory.get_all()}
    assert {(one.speaker, one.role, one.session, one.occurred_at) for one in found.values()} == {
        ("Ada", "user", "one", when),
        (None, "assistant", "one", None),
        ("Ada", "user", "two", None),
    }
    assert found.keys() == {"a", "b", "c"}


def test_a_long_passage_is_remembered_in_segments_that_all_name_it() -> None:
    items = (Item("7", "Bees fly far and wide. " * 200, title="Bees"), Item("8", "They rest.", title="Geese"))
    with Memory(":memory:", encoder="hash") as memory:
        sets.remember(memory, Collection("x", items, ()))
        found = memory.get_all()
        assert [hit.metadata["item"] for hit in memory.search("geese rest", k=1)] == ["8"]
    named = [str(segment.metadata["item"]) for segment in found]
    assert named.count("7") > 1
    assert named.count("8") == 1


REAL = os.environ.get("MEMSPAN_BENCH_DATA")
COUNTS = {
    "locomo": 997, "realtalk": 358, "beam": 108, "musique": 100, "hotpotqa": 100, "cranfield": 225, "qmsum": 237
}  # fmt: skip


@pytest.mark.skipif(not REAL, reason="MEMSPAN_BENCH_DATA names no directory with the data sets, which are not ours")
@pytest.mark.parametrize("name", COUNTS)
def test_the_real_files_have_as_many_questions_as_documented(name: str) -> None:
    found = sets.load(name, Path(REAL or ""))
    assert sum(len(each.asks) for each in found.collections) == COUNTS[name]
    for each in found.collections:
        known = {item.id for item in each.items}
        assert len(known) == len(each.items)
        assert all(ask.gold and known.issuperset(ask.gold) for ask in each.asks)
