"""`bench recall` end to end on small made-up sets in their published shapes, and what its tables say."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from memspan.bench import recall, tables
from memspan.bench.embeddings import Cached
from memspan.bench.measures import averages
from memspan.bench.plain import BM25
from memspan.bench.sets import Ask
from memspan.bench.standings import Answered, Placed, standings
from memspan.encoders.hash import HashEncoder
from memspan.errors import InvalidInput
from memspan.testing import WordEncoder

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / "README.md"
NUMBERS = ROOT / "bench" / "recall.json"


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """LoCoMo and BEAM, invented; an encoder's token activations can be kept."""
    basis = WordEncoder().basis()
    for module in ("memspan.store", "memspan.bench.plain"):
        monkeypatch.setattr(f"{module}.shipped", lambda id: basis if id.startswith("words") else None)
    said = [
        "I finally adopted a greyhound, her name is Comet.",
        "Wonderful! My allotment gave me forty pumpkins.",
        "Look at this sailing boat in the harbour!",
        "The pumpkins became soup for the whole street.",
    ]
    turns = [
        {"speaker": "AdaBo"[n % 2 * 3 :][:3], "dia_id": f"D1:{n + 1}", "text": text} for n, text in enumerate(said)
    ]
    qa = [
        {"question": "What did Ada adopt?", "evidence": ["D1:1"], "category": 4},
        {"question": "What happened to the pumpkins?", "evidence": ["D1:2; D1:04"], "category": 1},
        {"question": "What did Bo adopt?", "evidence": ["D1:1"], "category": 5},
        {"question": "What is unknown?", "evidence": [], "category": 3},
    ]
    conversations = [{"sample_id": id, "conversation": {"session_1": turns}, "qa": qa} for id in ("one", "two")]
    write(tmp_path / "data" / "locomo" / "some.json", conversations)
    messages = [{"role": "user", "id": n, "content": text} for n, text in enumerate(said)]
    probing = {
        "abstention": [{"question": "Do I keep cats?"}],
        "knowledge_update": [
            {"question": "Pumpkins soup?", "source_chat_ids": {"original_info": [1], "updated_info": [3]}},
            {"question": "Forty pumpkins?", "source_chat_ids": {"original_info": [1], "updated_info": [3]}},
        ],
        "contradiction_resolution": [
            {"question": "Sailing boat?", "source_chat_ids": {"first_statement": [2], "second_statement": [0]}}
        ],
    }
    chat = tmp_path / "data" / "beam" / "100K" / "1"
    write(chat / "chat.json", [{"batch_number": 1, "turns": [messages]}])
    write(chat / "probing_questions" / "probing_questions.json", probing)
    return tmp_path / "data"


def test_every_system_is_measured_on_every_set_that_is_there(data: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    ranks = tmp_path / "results" / "ranks.jsonl"
    report = recall.run(
        data, encoder=WordEncoder(), cache=tmp_path / "cache", ranks=ranks, progress=lambda *step: told.append(step)
    )
    assert list(report["sets"]) == ["locomo", "locomo by session", "beam"]
    locomo, beam = report["sets"]["locomo"], report["sets"]["beam"]
    assert locomo["data"] | {"sha256": ""} == {
        "sha256": "", "collections": 2, "items": 8, "questions": 6, "not_answerable": 2
    }  # fmt: skip
    ablated = [f"default-{part}" for part in ("semantic", "keyword", "next", "mentions", "maxsim", "echo", "speaker")]
    systems = list(locomo["results"])
    assert systems[-4:] == ["dense", "bm25", "rrf", "maxsim"]
    assert {"default", *ablated} < set(systems)
    assert locomo["results"]["default"]["recall@10"] == 1, "four turns: all are among the first ten"
    assert locomo["results"]["bm25"]["mrr@10"] == 1
    assert locomo["results"]["dense"]["ahead"].keys() == {"mean", "95"}
    assert locomo["results"]["default"]["rb@512"] == 1
    assert set(locomo["results"]["default"]["kinds"]) == {"1", "4", "5"}
    assert {name: beam["results"]["bm25"][name] for name in ("uo", "uo_questions", "cp@10", "cp@10_questions")} == {
        "uo": 0.5, "uo_questions": 2, "cp@10": 0, "cp@10_questions": 1
    }  # fmt: skip
    assert beam["results"]["dense"]["cp@10"] == 1, "it ranks every message"
    assert beam["results"]["bm25"]["auroc"] == 1, "cats are nowhere named"
    assert "not there" not in report["skipped"]
    assert "longmemeval_s.json" in report["skipped"]["longmemeval"]
    assert told[-1] == (10, 10, "")
    assert json.loads(json.dumps(report)) == report
    lines = [json.loads(line) for line in ranks.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 10
    assert lines[1]["ranks"]["bm25"].keys() == {"D1:2", "D1:4"}
    published = {word for line in lines for word in json.dumps(line).replace('"', " ").split()}
    assert not published & {"Ada", "Comet", "pumpkins", "adopt?"}, "ids and ranks only"
    for name, one in locomo["results"].items():
        own = [list(line["ranks"][name].values()) for line in lines if line["set"] == "locomo"]
        assert averages(own) == {key: one[key] for key in averages(own)}


def test_a_second_run_encodes_nothing_and_finds_the_same(data: Path, tmp_path: Path) -> None:
    first = recall.run(data, ("beam",), encoder=WordEncoder(), cache=tmp_path / "cache")
    second = recall.run(data, ("beam",), encoder=WordEncoder(), cache=tmp_path / "cache")
    assert first["encoded"] > 0
    assert second["encoded"] == 0
    assert first["sets"] == second["sets"]


def test_several_processes_find_what_one_does(data: Path, tmp_path: Path) -> None:
    alone, shared = (
        recall.run(data, ("locomo", "beam"), encoder="hash", ablate=False, cache=tmp_path / "cache", jobs=jobs)
        for jobs in (1, 2)
    )
    assert shared["sets"] == alone["sets"]
    assert shared["encoded"] == 0
    assert shared["plain"] == ["dense", "bm25", "rrf"], "hashing has no token activations"


def test_what_goes_wrong_in_another_process_is_told_as_ever(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "cache"
    encoder = HashEncoder()
    cached = Cached(encoder, file)
    (pooled,) = cached.encode(["What did Ada adopt?"]).pooled
    cached.close()
    file.write_bytes(file.read_bytes().replace(pooled.tobytes(), bytes(4 * encoder.dim)))
    with pytest.raises(InvalidInput, match=r"^cache: .*damaged") as told:
        recall.run(data, ("locomo",), encoder="hash", ablate=False, cache=file, jobs=2)
    assert told.value.argument == "cache"


def test_an_encoder_that_only_this_process_has_is_not_shared(data: Path) -> None:
    with pytest.raises(InvalidInput, match=r"^jobs: .*give 1"):
        recall.run(data, encoder=HashEncoder(), jobs=2)


def test_without_an_encoder_words_alone_are_compared(data: Path) -> None:
    report = recall.run(data, ("beam",), encoder="none", ablate=False)
    assert list(report["sets"]["beam"]["results"]) == ["default", "fast", "deep", "bm25"]


def test_all_conversations_may_be_one_store(data: Path) -> None:
    report = recall.run(data, ("locomo-pooled",), encoder="hash", recipes=("flat",), ablate=False)
    pooled = report["sets"]["locomo-pooled"]
    assert pooled["data"]["collections"] == 1
    assert pooled["results"]["dense"]["mrr@10"] < 1, "what both conversations say is found in either"


def test_of_a_large_set_the_ablations_are_asked_a_sample_that_the_tables_name(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "SAMPLE", 3)
    report = recall.run(data, ("locomo",), encoder="hash")
    results = report["sets"]["locomo"]["results"]
    assert results["default"]["questions"] == results["dense"]["questions"] == 6
    assert results["default-next"]["questions"] == 3
    assert "In locomo, locomo by session the ablations were asked a fixed sample" in tables.table(report)


def test_the_tables_say_what_the_json_says(data: Path) -> None:
    report = recall.run(data, encoder=WordEncoder())
    written = tables.markdown(report)
    blocks = re.findall(r"^(beam|locomo).*?:.*\n\n((?:\|.*\n)+)", written, re.MULTILINE)
    assert [name for name, _ in blocks] == ["locomo", "locomo", "beam"]
    head, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in blocks[2][1].splitlines())
    for line in lines:
        row = dict(zip(head, line, strict=True))
        one = report["sets"]["beam"]["results"][row[""]]
        assert int(row["n"]) == one["questions"]
        for name, key in tables.MEASURES:
            if key != "recall@10_95":
                assert float(row[name]) == pytest.approx(one[key], abs=6e-4)
    shown = tables.table(report)
    assert all(cell in shown for line in lines for cell in line)


def test_the_plot_has_a_dot_for_each_recipe_and_plain_system(data: Path) -> None:
    drawn = tables.plot(recall.run(data, ("beam",), encoder=WordEncoder(), recipes=("default", "flat")))
    assert drawn.count("<circle") == 6
    for name in ("default", "flat", "dense", "bm25", "rrf", "maxsim"):
        assert f">{name}</text>" in drawn


def test_standings_are_paired_on_the_questions_that_both_were_asked() -> None:
    def placed(rank: int | None, top: float = 0.5) -> Placed:
        return Placed((rank,), (), (0.0, 0.0, 1.0, 1.0), top)

    ask = Ask("?", ("a",), "one")
    answered = [
        Answered(ask, {"first": placed(1, 0.9), "other": placed(20)}),
        Answered(ask, {"first": placed(2, 0.2), "other": placed(2)}),
        Answered(ask, {"first": placed(None, 0.4)}),
        Answered(Ask("?", (), "none", answerable=False), {"first": Placed((), (), (), 0.3), "other": placed(None)}),
    ]
    results = standings(answered, "first", ("other",))
    assert results["first"]["recall@10"] == pytest.approx(2 / 3, abs=1e-4)
    assert results["first"]["auroc"] == pytest.approx(2 / 3, abs=1e-4)
    assert results["first"]["rb@1024"] == 0
    assert results["first"]["rb@2048"] == 1
    assert results["first"]["kinds"] == {"one": results["first"]["kinds"]["one"]}
    assert results["other"]["questions"] == 2
    assert results["other"]["ahead"]["mean"] == 0.5
    assert "kinds" not in results["other"]


def test_plain_bm25_scores_as_computed_by_hand() -> None:
    index = BM25([["bee", "bee", "hive"], ["goose"], ["goose", "pond"]], k1=1.0, b=0.0)
    idf = 0.9808292530117262  # ln(1 + 2.5 / 1.5)
    assert index.scores(["bee", "bee", "moon"]).tolist() == pytest.approx([idf * 2 * 2 / 3, 0, 0])


def test_every_part_that_a_recipe_can_do_without_is_left_out_in_turn() -> None:
    named = recall.ablations("default")
    assert {"default-next", "default-mentions", "default-named", "default-maxsim"} <= set(named)
    assert len(set(named)) == len(named)
    assert recall.ablations("keyword") == ()


def test_readme_shows_what_the_measured_numbers_say() -> None:
    report = json.loads(NUMBERS.read_text(encoding="utf-8"))
    shown = README.read_text(encoding="utf-8")
    assert tables.between(shown, report) == shown, "make recall-table"


def test_the_measured_numbers_hold_no_texts() -> None:
    def strings(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [word for pair in value.items() for each in pair for word in strings(each)]
        if isinstance(value, list):
            return [word for each in value for word in strings(each)]
        return [value] if isinstance(value, str) else []

    report = json.loads(NUMBERS.read_text(encoding="utf-8"))
    assert max(map(len, strings(report["sets"]))) <= 64, "names and checksums"


REAL = os.environ.get("MEMSPAN_BENCH_DATA")


@pytest.mark.skipif(
    not (REAL and (Path(REAL) / "locomo" / "locomo_dev.json").is_file()),
    reason="MEMSPAN_BENCH_DATA names no directory with locomo/locomo_dev.json, which is not part of this project",
)
def test_on_the_real_locomo_the_engine_is_ahead_of_every_plain_system() -> None:
    part = recall.run(REAL or "", ("locomo",), ablate=False, recipes=("default",))["sets"]["locomo"]
    assert (part["data"]["items"], part["data"]["questions"]) == (2_760, 997)
    found = {name: one["recall@10"] for name, one in part["results"].items()}
    assert found["bm25"] == pytest.approx(0.648, abs=0.01)
    assert found["dense"] == pytest.approx(0.479, abs=0.02)
    assert found["default"] > max(found[name] for name in ("dense", "bm25", "rrf", "maxsim"))
