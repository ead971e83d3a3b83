"""The needle bench: what ships with it, the haystack it builds, and what it reports."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan import Memory
from memspan.analysis import terms
from memspan.bench import needle
from memspan.encoders import make
from memspan.encoders.base import Encoded
from memspan.encoders.hash import HashEncoder
from memspan.errors import InvalidInput
from memspan.segmenting import WordTokenizer

TOKENS = 2_000
FEW = 20
WORDS = WordTokenizer()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("needle") / "stores"


@pytest.fixture(scope="module")
def report(stores: Path) -> dict[str, Any]:
    return needle.run(tokens=TOKENS, needles=FEW, encoder="hash", store=stores, recipes=("default", "dsm"))


def hidden_here() -> dict[str, tuple[needle.Needle, ...]]:
    """The needles of ``report``."""
    return {kind: several[: FEW // (1 + number)] for number, (kind, several) in enumerate(needle.shipped().items())}


@pytest.fixture(scope="module")
def everyone() -> tuple[needle.Needle, ...]:
    return tuple(chain(*needle.shipped().values()))


def paragraphs(passages: Sequence[needle.Passage]) -> list[str]:
    return [" ".join(part.split()) for passage in passages for part in passage.text.split("\n\n")]


# The needles


def test_there_are_a_hundred_needles_with_a_shared_name_and_fifty_without_all_different(
    everyone: tuple[needle.Needle, ...],
) -> None:
    assert {kind: len(each) for kind, each in needle.shipped().items()} == {needle.NAMED: 100, needle.UNNAMED: 50}
    assert len({each.text for each in everyone}) == len({each.question for each in everyone}) == 150


def test_each_needle_holds_the_answer_to_its_question_and_the_question_does_not(
    everyone: tuple[needle.Needle, ...],
) -> None:
    for each in everyone:
        assert each.answer in each.text
        assert each.answer.casefold() not in each.question.casefold()
        assert each.question.endswith("?")


def test_a_named_needle_shares_with_its_question_a_name_that_is_nowhere_else_and_hardly_another_word(
    everyone: tuple[needle.Needle, ...],
) -> None:
    for each in needle.shipped()[needle.NAMED]:
        assert each.name is not None
        holds = [other for other in everyone if each.name in other.text or each.name in other.question]
        assert holds == [each]
        assert each.name in each.text
        assert each.name in each.question
        assert len(set(terms(each.question)) & set(terms(each.text)) - set(terms(each.name))) <= 1


def test_no_name_is_a_word_of_pythons_documentation() -> None:
    documented = set(re.findall(r"\w+", " ".join(topics.values()).casefold()))
    for each in needle.shipped()[needle.NAMED]:
        assert each.name is not None
        assert not documented & set(each.name.casefold().split())


def test_an_unnamed_needle_shares_no_telling_word_with_its_question() -> None:
    for each in needle.shipped()[needle.UNNAMED]:
        assert each.name is None
        assert set(terms(each.question)) & set(terms(each.text)) <= {"after"}


def test_questions_share_few_of_their_terms_with_their_needle(everyone: tuple[needle.Needle, ...]) -> None:
    assert np.mean([each.shared for each in needle.shipped()[needle.NAMED]]) < 0.3
    assert np.mean([each.shared for each in needle.shipped()[needle.UNNAMED]]) < 0.01
    assert max(each.shared for each in everyone) <= 0.5


def test_among_the_needles_alone_no_two_are_nearest_to_each_others_question(
    everyone: tuple[needle.Needle, ...],
) -> None:
    encoder = make("minilm")
    asked, told = (
        np.concatenate([encoder.encode([text]).pooled for text in texts])
        for texts in zip(*((each.question, each.text) for each in everyone), strict=True)
    )
    nearest = np.argmax(asked @ told.T, axis=1)
    own = np.arange(len(everyone))
    assert not np.any((nearest != own) & (nearest[nearest] == own))
    assert np.mean((nearest == own)[: len(needle.shipped()[needle.NAMED])]) > 0.95


def test_the_share_of_terms_counts_distinct_stems_of_the_question() -> None:
    one = needle.Needle(
        text="Ada mends clocks.", question="Whose clock did Ada buy, and did Ada pay?", answer="", name="Ada"
    )
    assert set(terms(one.question)) == {"clock", "ada", "buy", "pay"}
    assert one.shared == 0.5


# The haystack


def test_a_haystack_is_as_long_as_asked_by_less_than_its_last_passage_and_always_the_same() -> None:
    found = needle.haystack(30_000, WORDS)
    sizes = [passage.tokens for passage in found]
    assert sizes == WORDS.count([passage.text for passage in found])
    assert sum(sizes[:-1]) < 30_000 <= sum(sizes)
    assert max(len(passage.text) for passage in found) <= needle.PASSAGE
    assert found == needle.haystack(30_000, WORDS)


def test_a_shorter_haystack_is_the_beginning_of_a_longer_one() -> None:
    short = needle.haystack(2_000, WORDS)
    assert short == needle.haystack(9_000, WORDS)[: len(short)]


def test_no_paragraph_of_the_standard_library_stands_in_the_haystack_twice() -> None:
    found = needle.haystack(150_000, WORDS)
    assert {passage.source for passage in found} == {"Python's documentation", "Python's library"}
    assert Counter(paragraphs(found)).most_common(1)[0][1] == 1


def test_a_given_folder_is_read_first_and_all_its_kinds_of_text_are(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    for name in ("a.txt", "b.md", "c.rst", "deeper/d.py", "e.html"):
        (tmp_path / name).write_text(f"# The file called {name} says something of its own", encoding="utf-8")
    (tmp_path / "f.bin").write_bytes(b"Four words at least are here")
    (tmp_path / "g.txt").write_bytes(b"\0\1\2 no text in spite of its name")
    found = needle.haystack(2_000, WORDS, tmp_path)
    own = [passage.text for passage in found if passage.source == "given folder"]
    assert [passage.source for passage in found[: len(own)]] == ["given folder"] * len(own)
    assert len(own) == 5
    for text, name in zip(own, ("a.txt", "b.md", "c.rst", "d.py", "e.html"), strict=True):
        assert name in text


def test_what_was_said_before_in_whatever_file_is_left_out_and_so_are_the_needles(tmp_path: Path) -> None:
    one, two, hidden = (f"A paragraph about {what} and nothing else at all." for what in ("tea", "coffee", "needles"))
    (tmp_path / "a.txt").write_text(f"{one}\n\n{hidden}\n\n{one}", encoding="utf-8")
    (tmp_path / "b.txt").write_text(f"{two}\n \n{one.replace(' about', chr(10) + 'about')}", encoding="utf-8")
    found = needle.haystack(1_000, WORDS, tmp_path, without=[hidden])
    assert [passage.text for passage in found if passage.source == "given folder"] == [one, two]


def test_a_paragraph_longer_than_a_passage_is_cut_at_lines_and_loses_no_word(tmp_path: Path) -> None:
    lines = [f"line {word}" for word in map(str, range(1_000, 2_000))]
    text = "\n".join(line.replace("0", "zero ").replace("1", "one ").replace("2", "two ") for line in lines)
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    own = [each.text for each in needle.haystack(1_000, WORDS, tmp_path) if each.source == "given folder"]
    cut = [each for passage in own for each in passage.split("\n")]
    assert set(cut) <= set(text.split("\n"))
    whole = [each.text for each in needle.haystack(5_000, WORDS, tmp_path) if each.source == "given folder"]
    assert "\n".join(whole).split() == text.split()


def test_tables_of_numbers_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0x01, 0x02, 0x03, 0x04, 0x05\n\nThese are words of real text.", encoding="utf-8")
    found = needle.haystack(1_000, WORDS, tmp_path)
    assert found[0].text == "These are words of real text."


def test_a_machine_with_less_text_than_asked_says_how_much_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))  # a Python without its sources
    with pytest.raises(InvalidInput, match=r"^tokens: there are only \d\d,\d\d\d tokens of text here, and 900,000"):
        needle.haystack(900_000, WORDS)


@pytest.mark.parametrize("content", [None, {"a.bin": "Four words at least"}])
def test_a_folder_without_text_is_refused(tmp_path: Path, content: dict[str, str] | None) -> None:
    folder = tmp_path / "data"
    for name, text in (content or {}).items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"^data: .*txt, md, rst, py or html"):
        needle.haystack(1_000, WORDS, folder)


# Depths


@given(st.lists(st.integers(1, 600), min_size=1, max_size=60), st.integers(2, 100), st.data())
def test_a_needle_stands_at_the_border_nearest_to_its_depth(
    sizes: list[int], needles: int, data: st.DataObject
) -> None:
    depths = data.draw(st.integers(2, needles))
    found = needle.places(sizes, needles, depths)
    borders = np.concatenate([[0], np.cumsum(sizes)])
    wanted = needle.levels(needles, depths) / (depths - 1) * borders[-1]
    off = np.abs(borders[found] - wanted)
    assert np.allclose(off, np.abs(borders[:, None] - wanted).min(axis=0))
    assert (np.diff(found) >= 0).all()


@given(st.integers(2, 100), st.data())
def test_depths_are_even_from_nothing_to_all_with_as_many_needles_at_each(needles: int, data: st.DataObject) -> None:
    depths = data.draw(st.integers(2, needles))
    counts = np.bincount(needle.levels(needles, depths), minlength=depths)
    assert len(counts) == depths
    assert counts.max() - counts.min() <= 1


def test_in_the_store_each_needle_of_both_sets_really_stands_at_its_depth(stores: Path, report: dict[str, Any]) -> None:
    texts = {each.text for each in chain(*hidden_here().values())}
    with Memory(stores / str(TOKENS), namespace=needle.NAMESPACE) as memory:
        written = memory.get_all(limit=10_000)
    hay = [0 if segment.text in texts else segment.tokens for segment in written]
    depth = {segment.text: sum(hay[:at]) / sum(hay) for at, segment in enumerate(written)}
    widest = max(passage.tokens for passage in needle.haystack(TOKENS, WORDS))
    for hidden in hidden_here().values():
        for number, each in enumerate(hidden):
            level = number * 10 // len(hidden)
            assert depth[each.text] == pytest.approx(level / 9, abs=0.6 * widest / sum(hay))
        assert depth[hidden[0].text] == 0
        assert depth[hidden[-1].text] == 1


# The report


def test_the_report_counts_what_is_in_the_store(stores: Path, report: dict[str, Any]) -> None:
    with Memory(stores / str(TOKENS), namespace=needle.NAMESPACE) as memory:
        held = memory.stats()
    (entry,) = report["lengths"]
    assert (entry["tokens"], entry["segments"]) == (held["tokens"], held["segments"])
    assert held["repeats"] == held["pending"] == 0
    own = sum(WORDS.count([each.text for each in chain(*hidden_here().values())]))
    assert sum(entry["haystack_tokens"].values()) + own == held["tokens"]
    assert json.loads(json.dumps(report)) == report


def test_the_report_says_how_many_words_each_set_shares_with_its_questions(report: dict[str, Any]) -> None:
    for kind, hidden in hidden_here().items():
        told = report["needles"][kind]
        assert told["count"] == len(hidden)
        assert told["terms_shared_with_the_question"] == pytest.approx(np.mean([n.shared for n in hidden]), abs=1e-4)


def test_the_hits_of_each_set_follow_from_its_ranks_and_the_missed_are_named_by_number(report: dict[str, Any]) -> None:
    for sets in report["lengths"][0]["results"].values():
        assert {kind: len(found["ranks"]) for kind, found in sets.items()} == {
            needle.NAMED: FEW,
            needle.UNNAMED: FEW // 2,
        }
        for found in sets.values():
            ranks = [rank or 1_000 for rank in found["ranks"]]
            for k in (1, 5, 10):
                assert found[f"hit@{k}"] == sum(rank <= k for rank in ranks) / len(ranks)
            assert found["missed"] == [number for number, rank in enumerate(ranks, 1) if rank > 5]
            size = len(ranks) // 10
            each = [sum(rank <= 5 for rank in ranks[at : at + size]) / size for at in range(0, len(ranks), size)]
            assert found["hit@5_by_depth"] == each


def test_the_ranks_are_those_a_search_on_the_kept_store_gives(stores: Path, report: dict[str, Any]) -> None:
    with Memory(stores / str(TOKENS), namespace=needle.NAMESPACE) as memory:
        for kind, hidden in hidden_here().items():
            ranks = report["lengths"][0]["results"]["memspan default"][kind]["ranks"]
            for each, rank in zip(hidden[:20], ranks[:20], strict=True):
                texts = [hit.text for hit in memory.search(each.question, k=10)]
                assert (texts.index(each.text) + 1 if each.text in texts else None) == rank


def test_plain_vector_search_ranks_by_the_cosine_of_the_vectors_in_the_store(
    stores: Path, report: dict[str, Any]
) -> None:
    encoder = HashEncoder()
    with Memory(stores / str(TOKENS), namespace=needle.NAMESPACE) as memory:
        texts = [segment.text for segment in memory.get_all(limit=10_000)]
    vectors = encoder.encode(texts).pooled.astype(np.float16).astype(np.float32)
    for kind, hidden in hidden_here().items():
        plain = report["lengths"][0]["results"][needle.PLAIN][kind]
        assert plain["comparisons"] == {"mean": len(texts), "most": len(texts)}
        for each, rank in zip(hidden, plain["ranks"], strict=True):
            scores = vectors @ encoder.encode([each.question]).pooled[0]
            own = scores[texts.index(each.text)]
            assert np.sum(scores > own + 1e-6) < rank <= 1 + np.sum(scores > own - 1e-6)


def test_contexts_are_within_their_budget_and_attention_is_counted_over_them(report: dict[str, Any]) -> None:
    total = report["lengths"][0]["tokens"]
    for found in report["lengths"][0]["results"]["memspan default"].values():
        assert 0 < found["context"]["mean_tokens"] <= found["context"]["most_tokens"] <= 1_000
        assert found["hit@5"] <= found["context"]["with_the_needle"] <= 1
        assert found["attention"] == needle.attention(found["context"]["mean_tokens"], total)


def test_attention_is_the_square_of_the_tokens_as_in_the_table_of_dsm() -> None:
    cost = needle.attention(256, 162_126)
    assert cost["active_attention_ops"] == 65_536
    assert cost["dense_attention_ops"] == 162_126**2
    assert round(cost["reduction_ratio"]) == 401_075


def test_a_recipe_routed_by_the_tree_says_what_it_compares(report: dict[str, Any]) -> None:
    (one,) = report["lengths"]
    for kind in needle.shipped():
        assert one["results"]["memspan default"][kind]["comparisons"] is None
        compared = one["results"]["memspan dsm"][kind]["comparisons"]
        assert 0 < compared["mean"] <= compared["most"] <= one["vectors"]


def ranks_in(entry: dict[str, Any]) -> dict[tuple[str, str], list[int | None]]:
    return {(name, kind): found["ranks"] for name, sets in entry["results"].items() for kind, found in sets.items()}


def test_two_runs_find_the_same() -> None:
    few: dict[str, Any] = {"tokens": 3_000, "needles": 12, "encoder": "hash", "recipes": ("default", "dsm")}
    (one,), (other,) = (needle.run(**few)["lengths"] for _ in range(2))
    assert one["tokens"] == other["tokens"]
    assert ranks_in(one) == ranks_in(other)


def test_of_fewer_needles_half_as_many_share_no_word_and_some_depths_may_have_none() -> None:
    (entry,) = needle.run(tokens=1_000, needles=6, depths=5, encoder="hash")["lengths"]
    for sets in entry["results"].values():
        assert {kind: len(found["ranks"]) for kind, found in sets.items()} == {needle.NAMED: 6, needle.UNNAMED: 3}
        assert None not in sets[needle.NAMED]["hit@5_by_depth"]
        assert [hit is None for hit in sets[needle.UNNAMED]["hit@5_by_depth"]] == [False, False, True, False, True]


class Counting(HashEncoder):
    """Writes down how often each text was encoded."""

    def __init__(self) -> None:
        super().__init__()
        self.times: Counter[str] = Counter()

    def encode(self, texts: Sequence[str]) -> Encoded:
        self.times.update(texts)
        return super().encode(texts)


def test_what_two_lengths_share_is_encoded_once_and_every_question_each_time() -> None:
    encoder = Counting()
    report = needle.run(tokens=[1_000, 2_000], needles=10, depths=2, encoder=encoder)
    assert [entry["asked_for"] for entry in report["lengths"]] == [1_000, 2_000]
    hidden = [*needle.shipped()[needle.NAMED][:10], *needle.shipped()[needle.UNNAMED][:5]]
    assert {encoder.times[each.text] for each in hidden} == {1}
    assert {encoder.times[each.question] for each in hidden} == {2 * 3}, "search, context, plain; for each length"


def test_every_recipe_is_asked_on_the_same_store() -> None:
    recipes = ("keyword", "semantic")
    (entry,) = needle.run(tokens=1_000, needles=10, depths=2, recipes=recipes, encoder="hash")["lengths"]
    assert list(entry["results"]) == ["memspan keyword", "memspan semantic", needle.PLAIN]
    for kind, plain in entry["results"][needle.PLAIN].items():
        semantic = entry["results"]["memspan semantic"][kind]
        assert semantic["ranks"] == [rank if rank <= 10 else None for rank in plain["ranks"]]


def test_without_an_encoder_there_are_no_vectors_to_compare_with() -> None:
    report = needle.run(tokens=1_000, needles=4, depths=2, encoder="none")
    assert report["encoder"] is None
    assert list(report["lengths"][0]["results"]) == ["memspan default"]


@pytest.mark.soak
def test_with_a_model_nearly_all_named_needles_of_a_small_haystack_are_found_and_most_of_the_others() -> None:
    report = needle.run(tokens=TOKENS, encoder="minilm")
    found = report["lengths"][0]["results"]
    assert found[needle.PLAIN][needle.NAMED]["hit@5"] >= 0.95
    assert found["memspan default"][needle.NAMED]["hit@5"] >= 0.95
    assert found["memspan default"][needle.NAMED]["context"]["with_the_needle"] >= 0.95
    assert found["memspan default"][needle.UNNAMED]["hit@5"] >= 0.6


def test_the_table_has_a_line_for_each_system_and_set_and_names_what_was_missed(report: dict[str, Any]) -> None:
    numbers, grid, missed = (part.splitlines() for part in needle.table(report).split("\n\n"))
    assert len(numbers) == len(grid) == 1 + 3 * 2
    assert f"{report['lengths'][0]['tokens']:,}" in numbers[1]
    for lines in (numbers, grid):
        systems = [name for name in ("memspan default", "memspan dsm", needle.PLAIN) for _ in range(2)]
        for line, system in zip(lines[1:], systems, strict=True):
            assert system in line
        for line, kind in zip(lines[1:], (needle.NAMED, needle.UNNAMED) * 3, strict=True):
            assert kind in line
    assert grid[0].split()[-1] == "100%"
    lost = [found["missed"] for sets in report["lengths"][0]["results"].values() for found in sets.values()]
    assert [line.rsplit(": ", 1)[1] for line in missed] == [", ".join(map(str, each)) for each in lost if each]


def test_the_bars_say_whether_every_named_needle_was_found_in_time(report: dict[str, Any]) -> None:
    found = report["lengths"][0]["results"]["memspan default"][needle.NAMED]
    hit = report["bars"]["2,000 tokens, memspan default, hit@5"]
    assert hit == f"{found['hit@5']:g}, at least 1: {'holds' if found['hit@5'] == 1 else 'MISSED'}"
    assert f"{found['search']['p50_ms']:g}, below 10" in report["bars"]["2,000 tokens, memspan default, search p50 ms"]


def test_progress_is_told_to_the_end() -> None:
    seen: list[tuple[int, int, str]] = []
    needle.run(tokens=1_000, needles=2, depths=2, encoder="hash", progress=lambda *told: seen.append(told))
    assert {"reading", "adding", "searching, default"} <= {what for _, _, what in seen}
    assert all(0 <= done <= total for done, total, _ in seen)
    assert seen[-1] == (1, 1, "")


@pytest.mark.parametrize(
    ("wrong", "argument"),
    [
        ({"tokens": 10}, "tokens"),
        ({"tokens": []}, "tokens"),
        ({"needles": 101}, "needles"),
        ({"needles": 1}, "needles"),
        ({"depths": 1}, "depths"),
        ({"needles": 5, "depths": 6}, "depths"),
        ({"recipes": ()}, "recipes"),
        ({"recipes": ("guess",)}, "recipe"),
        ({"budget": 99}, "budget"),
        ({"encoder": "smell"}, "encoder"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(wrong: dict[str, Any], argument: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        needle.run(**{"tokens": 1_000, "encoder": "hash"} | wrong)
    assert refused.value.argument == argument


def test_a_store_that_is_there_is_not_touched(stores: Path, report: dict[str, Any]) -> None:
    before = {file: file.stat().st_mtime_ns for file in stores.rglob("*.db")}
    with pytest.raises(InvalidInput, match=r"^store: .*is there already"):
        needle.run(tokens=TOKENS, encoder="hash", store=stores)
    assert before
    assert before == {file: file.stat().st_mtime_ns for file in stores.rglob("*.db")}
