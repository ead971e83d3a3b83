"""MemBank's API: its README, what it remembers, recalls, counts and collects."""

from __future__ import annotations

import json
import re
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import memspan.membank
from memspan.errors import AdapterError, InvalidInput, NotFound, StoreClosed
from memspan.membank import MemBank, MockAdapter, ModelAdapter, RecallResult, hash_text

QUICK_START = """
from memspan.membank import MemBank
from memspan.membank import MockAdapter

bank = MemBank(adapter=MockAdapter(hidden_dim=256))

# Ingest — compresses to 3 HGNS levels, stores content-addressed pointers
bank.ingest("The HGNS framework introduces recursive sub-steps between integers.")
bank.ingest("Quantum chaos is tamed by iterative HGNS refinement.")
bank.ingest("MemBank stores activations as zero-copy pointer references.")

# Recall — coarse-to-fine HGNS retrieval
results = bank.recall("HGNS butterfly effect", top_k=3)
for r in results:
    print(f"[{r.rank}] score={r.final_score:.4f}  chunk={r.source_text_hash[:16]}")

# Integrate — recall + ingest in one call (active working memory)
output = bank.integrate("How does HGNS suppress chaotic sensitivity?", top_k=2)
print(output["augmented_prompt"])
"""
PERSISTENT = """
from memspan.membank import MemBank
bank = MemBank(
    adapter=HuggingFaceAdapter("gpt2"),
    buffer_path="./memory.mmap",
    registry_path="./memory.db",
)
bank.ingest("Important fact: HGNS was invented in September 2025.")
bank.close()

# Session 2 — restore and recall
bank = MemBank(
    adapter=HuggingFaceAdapter("gpt2"),
    buffer_path="./memory.mmap",
    registry_path="./memory.db",
)
bank.rebuild_indexes()  # Rebuilds in-memory FAISS indexes from persisted registry
results = bank.recall("When was HGNS invented?", top_k=1)
"""
CONVERSATION = """
for user_message in conversation:
    output = bank.integrate(user_message, top_k=3)

    # Feed output["augmented_prompt"] to your LLM
    response = llm.generate(output["augmented_prompt"])
    bank.ingest(response)  # Also ingest the model's response
"""
OWN_ADAPTER = """
from memspan.membank import ModelAdapter
import numpy as np

class MyAdapter(ModelAdapter):

    @property
    def hidden_dim(self) -> int:
        return 768   # your model's embedding dimension

    def model_id(self) -> str:
        return "my-model-v1"   # stable across restarts

    def encode(self, text: str) -> np.ndarray:
        # Run your model, return shape (hidden_dim,) float32 array
        return my_model.encode(text).astype(np.float32)
"""

TEXTS = [
    "The cat sat on the warm mat by the fire.",
    "Tomatoes in the garden want water every evening.",
    "Rust channels give backpressure to websockets.",
    "The train to Lisbon leaves at noon on Friday.",
    "Violins are tuned in fifths, guitars mostly in fourths.",
    "A pointer is an address, and an address is a number.",
]


def opened(**options: Any) -> MemBank:
    options.setdefault("adapter", MockAdapter(64))
    return MemBank(**options)


def texts(results: list[RecallResult]) -> list[str]:
    return [result.text for result in results]


# The README


def test_the_quick_start_runs_with_only_the_import_changed_and_writes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(QUICK_START, "README", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\[0\] score=0\.\d{4}  chunk=[0-9a-f]{16}", lines[0])
    assert lines[3] == "[MemBank Context]"
    assert re.fullmatch(r'\[1\] \(score=0\.\d{4}\) chunk:[0-9a-f]{12}\.\.\. ".*HGNS.*"', lines[4])
    assert lines[-2:] == ["[Query]", "How does HGNS suppress chaotic sensitivity?"]
    assert list(tmp_path.iterdir()) == []


def test_the_persistent_and_conversational_examples_run_with_only_the_import_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    class Model:
        def generate(self, prompt: str) -> str:
            return f"I read {len(prompt)} characters."

    names: dict[str, Any] = {"HuggingFaceAdapter": lambda name: MockAdapter(64, name)}
    exec(compile(PERSISTENT, "README", "exec"), names)
    assert names["results"][0].text == "Important fact: HGNS was invented in September 2025."
    names |= {"conversation": ["What is HGNS?", "When was HGNS invented?"], "llm": Model()}
    exec(compile(CONVERSATION, "README", "exec"), names)
    assert "Important fact: HGNS was invented in September 2025." in names["output"]["augmented_prompt"]
    names["bank"].close()


def test_an_adapter_written_as_the_readme_says_can_be_used() -> None:
    class Model:
        def encode(self, text: str) -> np.ndarray[Any, Any]:
            return MockAdapter(768).encode(text).astype(np.float64)

    names: dict[str, Any] = {"my_model": Model()}
    exec(compile(OWN_ADAPTER, "README", "exec"), names)
    with MemBank(names["MyAdapter"]()) as bank:
        bank.ingest_batch(TEXTS)
        assert bank.recall("the train to Lisbon")[0].text == TEXTS[3]


def test_everything_the_readme_names_is_exported_and_documented() -> None:
    assert memspan.membank.__all__ == sorted(memspan.membank.__all__)
    for name in memspan.membank.__all__:
        assert getattr(memspan.membank, name).__doc__


# Remembering


def test_ingest_tells_pointers_dimensions_and_time() -> None:
    with MemBank(MockAdapter(256)) as bank:
        told = bank.ingest("one text")
        assert told.keys() == {"ptr_ids", "is_new", "dims", "ingest_ms"}
        assert told["dims"] == {"level0": 256, "level1": 84, "level2": 21}
        assert told["is_new"] is True
        assert told["ingest_ms"] > 0
        assert told["ptr_ids"].keys() == {"l0", "l1", "l2"}
        for level, id in enumerate(told["ptr_ids"].values()):
            pointer = bank.registry.get(id)
            assert pointer is not None
            assert re.fullmatch("[0-9a-f]{64}", id)
            assert (pointer.hgns_level, pointer.source_text_hash) == (level, hash_text("one text"))
            assert bank.buffer.deref(pointer).shape == (told["dims"][f"level{level}"],)


def test_a_text_ingested_again_does_not_grow_the_buffer_and_is_held_once_more() -> None:
    with opened() as bank:
        first = bank.ingest(TEXTS[0], {"turn": 1})
        used = bank.buffer.used_bytes
        again = bank.ingest(TEXTS[0], {"turn": 2})
        assert (again["ptr_ids"], again["is_new"]) == (first["ptr_ids"], False)
        assert bank.buffer.used_bytes == used
        for id in first["ptr_ids"].values():
            pointer = bank.registry.get(id)
            assert pointer is not None
            assert (pointer.ref_count, pointer.metadata) == (2, {"turn": 1})
        assert (bank.stats()["dedup_count"], bank.stats()["ingest_count"]) == (3, 2)
        assert texts(bank.recall(TEXTS[0])) == [TEXTS[0]]


def test_a_text_that_is_there_is_not_encoded_again() -> None:
    class Counting(MockAdapter):
        encoded = 0

        def encode_batch(self, texts: Any) -> Any:
            self.encoded += len(texts)
            return super().encode_batch(texts)

    adapter = Counting(64)
    with opened(adapter=adapter, auto_validate_adapter=False) as bank:
        bank.ingest_batch([*TEXTS, *TEXTS])
        bank.ingest(TEXTS[2])
    assert adapter.encoded == len(TEXTS)


def test_a_batch_does_what_one_by_one_does() -> None:
    with opened() as one, opened() as many:
        given_texts = [*TEXTS, "", TEXTS[1], TEXTS[1]]
        single = [one.ingest(text) for text in given_texts]
        batch = many.ingest_batch(given_texts)
        for a, b in zip(single, batch, strict=True):
            assert a | {"ingest_ms": 0} == b | {"ingest_ms": 0}
        assert one.stats()["registry"] == many.stats()["registry"]
        assert one.stats()["dedup_count"] == many.stats()["dedup_count"] == 6
        ids = batch[1]["ptr_ids"]["l0"]
        assert one.registry.get(ids).ref_count == many.registry.get(ids).ref_count == 3  # type: ignore[union-attr]
        assert many.ingest_batch([]) == []


def test_two_texts_with_one_activation_share_it_and_are_both_found() -> None:
    with opened() as bank:
        first, second = bank.ingest("milk and honey"), bank.ingest("Honey, and milk!")
        assert second["is_new"]
        assert first["ptr_ids"] == second["ptr_ids"]
        assert set(texts(bank.recall("honey"))) == {"milk and honey", "Honey, and milk!"}
        assert {result.source_text_hash for result in bank.recall("honey")} == {
            hash_text("milk and honey"),
            hash_text("Honey, and milk!"),
        }
        assert bank.stats()["registry"]["total_pointers"] == 3
        assert len(bank.registry.get_by_text("Honey, and milk!")) == 3


def test_texts_with_one_activation_have_metadata_of_their_own() -> None:
    with opened() as bank:
        bank.ingest("dog bites man", {"n": 1})
        bank.ingest("man bites dog", {"n": 2})
        found = {result.text: result for result in bank.recall("dog bites man", 20_000)}
        assert {text: result.metadata for text, result in found.items()} == {
            "dog bites man": {"n": 1},
            "man bites dog": {"n": 2},
        }
        for text, result in found.items():
            assert result.source_text_hash == result.best_ptr.source_text_hash == hash_text(text)
            assert result.best_ptr.metadata == result.metadata


@pytest.mark.parametrize("text", ["", " ", "\n", "🙂", "\0", "a" * 100_000])
def test_any_text_is_accepted_and_comes_back_as_it_was(text: str) -> None:
    with opened() as bank:
        bank.ingest(text)
        assert texts(bank.recall(text)) == [text]


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda bank: bank.ingest(7), "text"),
        (lambda bank: bank.ingest("\ud800"), "text"),
        (lambda bank: bank.ingest("a", {"b": object()}), "metadata"),
        (lambda bank: bank.ingest_batch("text"), "texts"),
        (lambda bank: bank.ingest_batch(["a"], []), "metadata"),
        (lambda bank: bank.recall(None), "query"),
        (lambda bank: bank.recall("a", 0), "top_k"),
        (lambda bank: bank.recall("a", levels=[]), "levels"),
        (lambda bank: bank.recall("a", levels=[3]), "levels"),
        (lambda bank: bank.recall("a", levels=5), "levels"),
        (lambda bank: bank.recall("a", levels=[2.0]), "levels"),
        (lambda bank: bank.recall("a", levels=["x"]), "levels"),
        (lambda bank: bank.recall("a", levels=[[0]]), "levels"),
        (lambda bank: bank.recall("a", levels=[True]), "levels"),
        (lambda bank: bank.recall("a", 1_000_001), "top_k"),
        (lambda bank: opened(candidate_multiplier=0), "candidate_multiplier"),
        (lambda bank: opened(saliency="size"), "saliency"),
        (lambda bank: opened(hgns_k=0), "k"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_stored(call: Any, argument: str) -> None:
    with opened() as bank:
        with pytest.raises(InvalidInput) as raised:
            call(bank)
        assert raised.value.argument == argument
        assert isinstance(raised.value, ValueError)
        assert bank.stats()["registry"]["total_pointers"] == bank.stats()["buffer"]["used_bytes"] == 0


def test_a_batch_of_which_one_text_cannot_be_encoded_is_not_stored_at_all() -> None:
    class Brittle(MockAdapter):
        def encode_batch(self, texts: Any) -> Any:
            if "bad" in texts:
                raise OverflowError("too hot")
            return super().encode_batch(texts)

    with opened(adapter=Brittle(64)) as bank:
        with pytest.raises(AdapterError, match="too hot") as raised:
            bank.ingest_batch([*TEXTS, "bad"])
        assert isinstance(raised.value, RuntimeError)
        assert bank.stats()["registry"]["total_pointers"] == 0


# Recalling


def test_results_are_ranked_and_say_everything_of_themselves() -> None:
    with opened() as bank:
        bank.ingest_batch(TEXTS)
        results = bank.recall("the garden wants water in the evening", top_k=3)
        assert results[0].text == TEXTS[1]
        assert [result.rank for result in results] == [0, 1, 2]
        scores = [result.final_score for result in results]
        assert scores == sorted(scores, reverse=True)
        for result in results:
            assert result.source_text_hash == hash_text(result.text)
            assert result.best_ptr is result.ptr_level0
            assert result.final_score == result.score_l0
            assert np.array_equal(bank.buffer.deref(result.best_ptr), bank.adapter.encode(result.text))
            levels = (result.ptr_level0, result.ptr_level1, result.ptr_level2)
            assert [pointer.hgns_level for pointer in levels] == [0, 1, 2]


@pytest.mark.parametrize("saliency", ["gradient", "magnitude"])
@pytest.mark.parametrize("levels", [None, [2], [1], [0], [2, 1], [1, 2], [2, 0], [2, 1, 0]])
def test_every_way_through_the_levels_finds_the_text_itself(levels: list[int] | None, saliency: Any) -> None:
    with MemBank(MockAdapter(256), saliency=saliency) as bank:
        bank.ingest_batch(TEXTS)
        for text in TEXTS:
            best = bank.recall(text, 1, levels)[0]
            assert best.text == text
            finest = min(levels or [0])
            assert best.final_score == (best.score_l0, best.score_l1, best.score_l2)[finest]
            asked = levels or [0, 1, 2]
            for level, score in enumerate((best.score_l0, best.score_l1, best.score_l2)):
                assert (score != 0) == (level in asked)


@pytest.mark.parametrize("saliency", ["gradient", "magnitude"])
def test_a_level_is_scored_against_the_entries_of_the_query_at_the_same_indices(saliency: Any) -> None:
    adapter = MockAdapter(256)
    with MemBank(adapter, saliency=saliency, min_recall_score=-1) as bank:
        bank.ingest_batch(TEXTS)
        query = adapter.encode("the number of the train")
        everywhere = np.arange(256)
        for result in bank.recall("the number of the train", len(TEXTS)):
            made = bank.hierarchy.compress(adapter.encode(result.text))
            aligned = bank.hierarchy.aligned_cosine_similarity
            for values, indices, score in (
                (made.level2, made.level2_indices, result.score_l2),
                (made.level1, made.level1_indices, result.score_l1),
                (made.level0, everywhere, result.score_l0),
            ):
                assert score == pytest.approx(aligned(values, indices, query, everywhere), abs=1e-5)


@given(
    stored=st.lists(st.text("abcdef ", max_size=30), min_size=1, max_size=30, unique=True),
    query=st.text("abcdef ", max_size=30),
    top_k=st.integers(1, 10),
)
def test_looking_at_level_0_alone_is_an_exact_search(stored: list[str], query: str, top_k: int) -> None:
    adapter = MockAdapter(16)
    with MemBank(adapter, min_recall_score=-1, auto_validate_adapter=False) as bank:
        bank.ingest_batch(stored)
        found = [result.final_score for result in bank.recall(query, top_k, [0])]
    exact = np.sort(adapter.encode_batch(stored) @ adapter.encode(query))[::-1][:top_k]
    assert found == pytest.approx(exact.tolist(), abs=1e-5)


def test_an_adaptive_candidate_set_finds_nearly_what_an_exact_search_finds() -> None:
    generator = np.random.default_rng(7)
    words = [f"word{n}" for n in range(300)]
    stored = [" ".join(generator.choice(words, 12)) for _ in range(500)]
    asked = [" ".join(generator.choice(words, 8)) for _ in range(40)]
    with MemBank(MockAdapter(256), candidate_multiplier="adaptive") as bank:
        bank.ingest_batch(stored)
        hits = sum(len(set(texts(bank.recall(q))) & set(texts(bank.recall(q, levels=[0])))) for q in asked)
    assert hits >= 0.95 * 5 * len(asked)


def test_results_below_the_least_score_are_dropped() -> None:
    with opened(min_recall_score=0.5) as bank:
        bank.ingest_batch(TEXTS)
        assert texts(bank.recall(TEXTS[4])) == [TEXTS[4]]
        assert bank.recall("nothing like it") == []
    with opened() as bank:
        assert bank.recall("an empty bank") == []


# Integrating


def test_integrate_recalls_before_it_ingests_unless_told_otherwise() -> None:
    with opened() as bank:
        first = bank.integrate(TEXTS[0])
        assert first.keys() == {"query", "recalled", "augmented_prompt", "ingest_result"}
        assert (first["query"], first["recalled"], first["ingest_result"]["is_new"]) == (TEXTS[0], [], True)
        assert first["augmented_prompt"] == f"[MemBank Context]\n[Query]\n{TEXTS[0]}"
        assert texts(bank.integrate(TEXTS[1], recall_first=False)["recalled"])[0] == TEXTS[1]


def test_only_the_headings_of_a_prompt_read_as_headings() -> None:
    stored = 'first [Query]\nand "[MemBank Context]" [Query] [query]'
    with opened(min_recall_score=-1) as bank:
        bank.ingest(stored)
        prompt = bank.integrate("what now?")["augmented_prompt"]
    assert (prompt.count("[Query]"), prompt.count("[MemBank Context]")) == (1, 1)
    context, query = prompt.split("[Query]")
    assert query.strip() == "what now?"
    assert json.loads(context.split("... ", 1)[1]) == stored


@given(st.text(st.characters(codec="utf-8")))
def test_a_recalled_text_cannot_pass_for_another_line_of_the_prompt(text: str) -> None:
    stored = f"{text}\n[Query]\r[Query]\u2028[Query]\x85[Query]"
    with opened(min_recall_score=-1, auto_validate_adapter=False) as bank:
        bank.ingest(stored)
        lines = bank.integrate("what now?")["augmented_prompt"].splitlines()
    assert len(lines) == 4
    assert [lines[0], *lines[2:]] == ["[MemBank Context]", "[Query]", "what now?"]
    assert json.loads(lines[1].split("... ", 1)[1]) == stored


# Care


def test_stats_have_the_keys_of_the_original() -> None:
    with MemBank(MockAdapter(256), buffer_capacity_bytes=1 << 20) as bank:
        bank.ingest_batch(TEXTS)
        bank.recall("train")
        stats = bank.stats()
        assert stats.keys() == {
            *("adapter", "model_id", "dims", "ingest_count", "recall_count", "dedup_count", "uptime_seconds"),
            *("buffer", "registry", "indexes"),
        }
        assert stats["buffer"].keys() == {"used_bytes", "capacity_bytes", "utilization"}
        assert stats["registry"] == {
            "total_pointers": 18,
            "live_pointers": 18,
            "dead_pointers": 0,
            "by_level": {"level_0": 6, "level_1": 6, "level_2": 6},
        }
        assert stats["indexes"] == {"level0_size": 6, "level1_size": 6, "level2_size": 6}
        assert (stats["ingest_count"], stats["recall_count"], stats["model_id"]) == (6, 1, "mock-256-v1")
        assert bank.rebuild_indexes() == 18
        assert "mock-256-v1" in repr(bank)
        assert "texts=6" in repr(bank)


def test_what_is_released_as_often_as_it_was_ingested_is_collected() -> None:
    with opened() as bank:
        bank.ingest_batch(TEXTS)
        ids = bank.ingest(TEXTS[0])["ptr_ids"].values()
        assert [bank.registry.release(id) for id in ids] == [False] * 3
        assert bank.gc() == {"collected": 0, "registry_deleted": 0}
        assert bank.recall(TEXTS[0])[0].text == TEXTS[0]
        assert [bank.registry.release(id) for id in ids] == [True] * 3
        assert TEXTS[0] not in texts(bank.recall(TEXTS[0]))
        assert bank.gc() == {"collected": 3, "registry_deleted": 3}
        assert bank.stats()["registry"]["total_pointers"] == 15
        assert bank.stats()["indexes"]["level2_size"] == 5
        assert bank.ingest(TEXTS[0])["is_new"]
        assert bank.recall(TEXTS[0])[0].text == TEXTS[0]


def test_collecting_a_text_collects_all_its_levels_unless_others_hold_them() -> None:
    with opened() as bank:
        ids, _ = (one["ptr_ids"] for one in bank.ingest_batch([TEXTS[0], TEXTS[0]]))
        assert [bank.registry.release(ids["l0"]) for _ in range(2)] == [False, True]
        assert bank.gc() == {"collected": 3, "registry_deleted": 3}
        assert bank.stats()["registry"]["total_pointers"] == 0
        assert bank.ingest(TEXTS[0])["is_new"]
        extra = bank.registry.get(ids["l1"])
        assert extra is not None
        bank.registry.put(extra)
        bank.registry.release(ids["l2"])
        assert bank.gc()["collected"] == 2
        assert [pointer.ref_count for pointer in bank.registry.get_by_level(1)] == [1]


def test_a_level_that_two_texts_share_outlives_one_of_them() -> None:
    class Alike(MockAdapter):
        """Two texts, of which level 2 is the same and the rest is not."""

        def encode_batch(self, texts: Sequence[str]) -> Any:
            found = np.zeros((len(texts), 64), np.float32)
            found[:, ::8] = 9
            found[:, 1] = [len(text) for text in texts]
            return found

    with MemBank(Alike(64), saliency="magnitude", auto_validate_adapter=False) as bank:
        one, two = bank.ingest("one")["ptr_ids"], bank.ingest("other")["ptr_ids"]
        assert one["l2"] == two["l2"]
        assert one["l0"] != two["l0"]
        bank.registry.release(one["l0"])
        assert bank.gc()["collected"] == 2
        assert bank.registry.get(two["l2"]).ref_count == 1  # type: ignore[union-attr]
        assert texts(bank.recall("other")) == ["other"]


def test_forgetting_a_model_leaves_the_texts_of_one_that_shares_its_activations() -> None:
    class Named(MockAdapter):
        def __init__(self, name: str) -> None:
            super().__init__(64)
            self.name = name

        def model_id(self) -> str:
            return self.name

    registry = "registry.db"
    with tempfile.TemporaryDirectory() as directory:
        files = Path(directory) / "b.mmap", Path(directory) / registry
        with MemBank(Named("A"), *files) as a, MemBank(Named("B"), *files) as b:
            a.ingest(TEXTS[0])
            b.ingest(TEXTS[0])
            a.ingest(TEXTS[1])
            assert len(a.recall(TEXTS[0], levels=[2])) + len(b.recall(TEXTS[0])) >= 2
            assert len(b.registry.get_by_model("B")) == 3
            assert a.registry.invalidate_model("A") == 3
            assert a.recall(TEXTS[0]) == []
            assert texts(b.recall(TEXTS[0])) == [TEXTS[0]]
            assert b.registry.get_by_model("A") == []
            assert [pointer.ref_count for pointer in b.registry.get_by_model("B")] == [1, 1, 1]


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-15, 1e15, 1e30, 1e38])
@pytest.mark.parametrize("multiplier", [5, "adaptive"])
def test_recall_does_not_depend_on_how_long_activations_are(scale: float, multiplier: Any) -> None:
    class Scaled(MockAdapter):
        def encode_batch(self, texts: Sequence[str]) -> Any:
            return super().encode_batch(texts) * np.float32(scale)

    with (
        MemBank(Scaled(64), candidate_multiplier=multiplier) as scaled,
        MemBank(MockAdapter(64), candidate_multiplier=multiplier) as plain,
    ):
        scaled.ingest_batch(TEXTS)
        plain.ingest_batch(TEXTS)
        for levels in (None, [2], [1], [0]):
            for text in TEXTS:
                found, wanted = scaled.recall(text, levels=levels), plain.recall(text, levels=levels)
                assert texts(found) == texts(wanted)
                scores = [result.final_score for result in wanted]
                assert [result.final_score for result in found] == pytest.approx(scores, abs=1e-4)


def test_a_dead_text_that_is_ingested_again_before_it_was_collected_lives() -> None:
    with opened() as bank:
        ids = bank.ingest(TEXTS[0])["ptr_ids"].values()
        assert all(bank.registry.release(id) for id in ids)
        assert bank.recall(TEXTS[0]) == []
        bank.ingest(TEXTS[0])
        assert bank.gc()["collected"] == 0
        assert texts(bank.recall(TEXTS[0])) == [TEXTS[0]]


def test_collecting_gives_space_back_and_leaves_what_lives_as_it_was() -> None:
    with opened() as bank:
        told = bank.ingest_batch([f"{text} {n}" for text in TEXTS for n in range(20)])
        held = bank.recall(f"{TEXTS[0]} 0", 1)[0]
        view = bank.buffer.deref(held.best_ptr)
        for one in told[10:]:
            for id in one["ptr_ids"].values():
                bank.registry.release(id)
        before = bank.buffer.used_bytes
        assert bank.gc()["collected"] == 3 * 110
        assert bank.buffer.used_bytes < before / 10
        assert np.array_equal(view, bank.adapter.encode(held.text))
        for n in range(10):
            best = bank.recall(f"{TEXTS[0]} {n}", 1)[0]
            assert best.text == f"{TEXTS[0]} {n}"
            assert np.array_equal(bank.buffer.deref(best.best_ptr), bank.adapter.encode(best.text))
        bank.ingest("one more")
        assert bank.recall("one more", 1)[0].text == "one more"


def test_a_pointer_from_before_a_compaction_is_never_taken_for_another() -> None:
    with opened() as bank:
        told = bank.ingest_batch(TEXTS)
        last = bank.registry.get(told[-1]["ptr_ids"]["l0"])
        for one in told[:-1]:
            for id in one["ptr_ids"].values():
                bank.registry.release(id)
        bank.gc()
        bank.ingest_batch(TEXTS[:-1])
        assert last is not None
        with pytest.raises((InvalidInput, memspan.errors.StoreCorrupt)):
            bank.buffer.deref(last)
        fresh = bank.registry.get(last.ptr_id)
        assert fresh is not None
        assert np.array_equal(bank.buffer.deref(fresh), bank.adapter.encode(TEXTS[-1]))


def test_a_closed_bank_says_so_and_closing_twice_does_nothing() -> None:
    bank = opened()
    bank.ingest(TEXTS[0])
    bank.close()
    bank.close()
    for call in (
        lambda: bank.ingest("x"),
        lambda: bank.ingest_batch([]),
        lambda: bank.recall("x"),
        lambda: bank.integrate("x"),
        bank.gc,
        bank.stats,
        bank.rebuild_indexes,
        bank.registry.stats,
        bank.buffer.sync,
        lambda: bank.query_engine.search(np.ones(64, np.float32)),
    ):
        with pytest.raises(StoreClosed, match="this MemBank was closed; open it again"):
            call()


def test_threads_ingest_recall_and_collect_beside_each_other() -> None:
    with opened() as bank:
        failed: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for n in range(15):
                    text = f"apple{number}x{n} pear{number}x{n}"
                    told = bank.ingest(text)
                    assert bank.recall(text, 1)[0].text == text
                    bank.ingest("what everybody says")
                    if n % 3 == 0:
                        for id in told["ptr_ids"].values():
                            with suppress(NotFound):  # another thread's gc collected the text with its first level
                                bank.registry.release(id)
                        bank.gc()
            except BaseException as error:  # noqa: BLE001 - told in the main thread
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert bank.query_engine.size == 4 * 10 + 1
        shared = bank.registry.get_by_text("what everybody says")
        assert [pointer.ref_count for pointer in shared] == [60, 60, 60]


def test_a_bank_can_be_made_of_anything_that_is_an_adapter() -> None:
    class Wrong(ModelAdapter):
        hidden_dim = 8

        def __init__(self, made: Any) -> None:
            self.made = made

        def model_id(self) -> str:
            return "wrong"

        def encode(self, text: str) -> Any:
            if isinstance(self.made, Exception):
                raise self.made
            return self.made

    for made, kind in (
        (np.zeros(9, np.float32), ValueError),
        (np.zeros((1, 8), np.float32), ValueError),
        (np.zeros(8, np.float64), ValueError),
        (np.full(8, np.nan, np.float32), ValueError),
        ([0.0] * 8, ValueError),
        (KeyError("gone"), RuntimeError),
    ):
        with pytest.raises(kind):
            Wrong(made).validate()
        with pytest.raises(kind):
            MemBank(Wrong(made))
        with MemBank(Wrong(made), auto_validate_adapter=False) as bank, pytest.raises(kind):
            bank.ingest("text")
    with MemBank(Wrong(np.zeros(8, np.float32))) as bank:
        bank.ingest("an activation of zeros")
        assert bank.recall("anything")[0].final_score == 0
