"""The measures by hand-computed examples, and the LoCoMo run end to end on a small file of the same shape."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan.bench import locomo, speed
from memspan.bench.measures import evidence, interval, measures, milliseconds, ranks_of, summary
from memspan.errors import InvalidInput

RANKS = st.lists(st.none() | st.integers(2, 60), min_size=1, max_size=8, unique_by=lambda rank: rank or object())


def test_a_question_is_scored_as_computed_by_hand() -> None:
    one = measures([1, 7, None, 12])
    assert one["recall@5"] == 1 / 4
    assert one["recall@10"] == 2 / 4
    assert one["recall@50"] == 3 / 4
    assert one["hit@10"] == 1
    assert one["all@10"] == 0
    assert one["mrr@10"] == 1
    ideal = 1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(5)
    assert one["ndcg@10"] == pytest.approx((1 + 1 / math.log2(8)) / ideal)


def test_evidence_below_the_tenth_place_counts_for_nothing_at_ten() -> None:
    one = measures([11, None])
    assert one == dict.fromkeys(one, 0.0) | {"recall@50": 0.5}


def test_more_than_ten_gold_items_can_still_reach_an_ndcg_of_one() -> None:
    one = measures(list(range(1, 13)))
    assert one["ndcg@10"] == pytest.approx(1)
    assert one["recall@10"] == 10 / 12
    assert one["all@10"] == 0


def test_a_question_without_gold_is_refused() -> None:
    with pytest.raises(ValueError, match="without gold"):
        measures([])


@given(RANKS)
def test_every_measure_is_between_zero_and_one_and_never_falls_when_ranks_improve(ranks: list[int | None]) -> None:
    one = measures(ranks)
    assert all(0 <= value <= 1 + 1e-9 for value in one.values())
    better = measures([None if rank is None else rank - 1 for rank in ranks])
    assert all(better[name] >= one[name] for name in one)


def test_a_summary_is_the_mean_over_questions_with_an_interval_around_it() -> None:
    total = summary([[1], [None], [2, None], [3, 4]])
    assert total["questions"] == 4
    assert total["recall@10"] == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    low, high = total["recall@10_95"]
    assert low < total["recall@10"] < high


def test_the_bootstrap_interval_is_repeatable_and_shrinks_with_more_questions() -> None:
    few, many = interval([0.0, 1.0] * 20), interval([0.0, 1.0] * 2_000)
    assert few == interval([0.0, 1.0] * 20)
    assert many[1] - many[0] < few[1] - few[0]
    assert many[0] < 0.5 < many[1]
    assert interval([0.3] * 7) == pytest.approx((0.3, 0.3))


def test_durations_are_told_in_milliseconds() -> None:
    assert milliseconds([0.001] * 99 + [1.0]) == {"p50_ms": 1.0, "p95_ms": 1.0, "p99_ms": pytest.approx(10.99)}


def test_ranks_are_places_counted_from_one() -> None:
    assert ranks_of(["b", "a", "b", "c"], ["a", "b", "z"]) == [2, 1, None]


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


def conversation(id: str = "conv-1") -> dict[str, Any]:
    """A conversation in the shape of the LoCoMo file, invented here."""
    return {
        "sample_id": id,
        "conversation": {
            "speaker_a": "Ada",
            "speaker_b": "Bo",
            "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": [
                {"speaker": "Ada", "dia_id": "D1:1", "text": "I finally adopted a greyhound, her name is Comet."},
                {"speaker": "Bo", "dia_id": "D1:2", "text": "Wonderful! My allotment gave me forty pumpkins."},
                {
                    "speaker": "Ada",
                    "dia_id": "D1:3",
                    "text": "Look at this!",
                    "blip_caption": "a photo of a sailing boat in a harbour",
                },
            ],
            "session_2_date_time": "10:04 am on 1 June, 2023",
            "session_2": [
                {"speaker": "Bo", "dia_id": "D2:1", "text": "The pumpkins became soup for the whole street."},
                {"speaker": "Ada", "dia_id": "D2:2", "text": "Comet won a ribbon at the county fair."},
            ],
        },
        "qa": [
            {"question": "What did Ada adopt?", "answer": "-", "evidence": ["D1:1"], "category": 4},
            {"question": "What happened to the pumpkins?", "answer": "-", "evidence": ["D1:2; D2:01"], "category": 1},
            {"question": "Who has a picture of a sailing boat?", "answer": "-", "evidence": ["D1:3"], "category": 4},
            {"question": "What is unknown?", "answer": "-", "evidence": [], "category": 3},
        ],
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "locomo.json"
    file.write_text(json.dumps([conversation(), conversation("conv-2")]), encoding="utf-8")
    return file


def test_a_file_of_that_shape_is_measured_end_to_end_beside_the_plain_systems(data: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    ranks = tmp_path / "results" / "ranks.jsonl"
    report = locomo.run(
        data, encoder="hash", ranks=ranks, progress=lambda done, total, what: seen.append((done, total))
    )
    assert report["data"] | {"sha256": ""} == {
        "file": "locomo.json",
        "sha256": "",
        "conversations": 2,
        "turns": 10,
        "questions": 6,
        "not_scored": 2,
    }
    assert set(report["results"]) == {"memspan", "bm25", "dense"}
    assert set(report["results"]["memspan"]) == {"all", "category 1", "category 4"}
    assert report["results"]["memspan"]["all"]["recall@10"] == 1, "five turns: all are among the first ten"
    assert report["results"]["bm25"]["all"]["mrr@10"] == 1
    assert set(report["gain_of_recall@10"]) == {"over bm25", "over dense"}
    assert seen[-1] == (18, 18)
    assert json.loads(json.dumps(report)) == report
    lines = [json.loads(line) for line in ranks.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 6
    assert lines[1]["conversation"] == "conv-1"
    assert lines[1]["question"] == 1
    assert set(lines[1]["ranks"]["memspan"]) == {"D1:2", "D2:1"}
    published = {word for line in lines for word in json.dumps(line).replace('"', " ").split()}
    assert not published & {"Ada", "Comet", "pumpkins", "adopt?"}, "ids and ranks only"


def test_the_published_ranks_give_the_published_measures(data: Path, tmp_path: Path) -> None:
    report = locomo.run(data, encoder="hash", ranks=tmp_path / "ranks.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "ranks.jsonl").read_text(encoding="utf-8").splitlines()]
    for system, groups in report["results"].items():
        assert summary([list(line["ranks"][system].values()) for line in lines]) == groups["all"]


def test_channels_switch_what_searches(data: Path) -> None:
    assert locomo.run(data, encoder="hash")["channels"] == ["semantic", "keyword"]
    report = locomo.run(data, encoder="hash", channels=["keyword"])
    assert report["channels"] == ["keyword"]
    assert report["results"]["memspan"]["all"]["recall@10"] <= 1
    with pytest.raises(InvalidInput, match="channels"):
        locomo.run(data, encoder="hash", channels=["smell"])


def test_without_an_encoder_there_is_no_dense_system_to_compare_with(data: Path) -> None:
    report = locomo.run(data, encoder="none")
    assert set(report["results"]) == {"memspan", "bm25"}
    assert report["encoder"] is None


def test_the_table_for_people_has_a_line_for_each_system_and_category(data: Path) -> None:
    lines = locomo.table(locomo.run(data, encoder="hash")).splitlines()
    assert len(lines) == 1 + 3 * 3
    assert len({len(line) for line in lines[1:]}) == 1


@pytest.mark.parametrize("content", [None, "not json", "[1]", '[{"sample_id": "x"}]', "{}", "[]"])
def test_a_file_that_is_not_locomo_is_refused_with_a_mend(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "data.json"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"^data: .*locomo10\.json"):
        locomo.run(file, encoder="hash")


def test_the_texts_of_the_speed_run_are_real_distinct_and_always_the_same() -> None:
    found = speed.texts(3_000)
    assert len(set(found)) == 3_000
    assert found == speed.texts(3_000)
    assert all(20 <= len(text) <= 1_000 and len(text.split()) >= 4 for text in found)
    asked = speed.queries(found, 50)
    assert len(asked) == 50
    assert all(1 <= len(query.split()) <= 8 for query in asked)


def test_too_few_segments_to_measure_are_refused() -> None:
    with pytest.raises(InvalidInput, match="segments"):
        speed.run(segments=10, encoder="hash")


def test_the_speed_run_measures_everything_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "STARTS", 1)
    report = speed.run(segments=1_000, encoder="hash")
    assert report["segments"] == 1_000
    assert set(report["bars"]) == set(speed.BARS) - {speed.RATIO}, "hashing is no model to be compared with"
    assert report["small"]["resident_mb"] > 10
    assert report["large"]["bytes_per_segment"] > 100
    assert json.loads(json.dumps(report)) == report


REAL = Path(os.environ.get("MEMSPAN_BENCH_DATA", "")) / "locomo" / "locomo_dev.json"


@pytest.mark.skipif(
    not (os.environ.get("MEMSPAN_BENCH_DATA") and REAL.is_file()),
    reason="MEMSPAN_BENCH_DATA names no directory with locomo/locomo_dev.json, which is not part of this project",
)
def test_the_real_file_is_read_as_documented_and_the_engine_beats_both_plain_systems() -> None:
    conversations = locomo.load(REAL)
    assert sum(len(each.turns) for each in conversations) == 2_760
    assert sum(bool(ask.gold) for each in conversations for ask in each.asks) == 997
    report = locomo.run(REAL)
    recall = {name: groups["all"]["recall@10"] for name, groups in report["results"].items()}
    assert recall["bm25"] == pytest.approx(0.645, abs=0.01)
    assert recall["dense"] == pytest.approx(0.473, abs=0.02)
    assert recall["memspan"] >= 0.64
    assert recall["memspan"] > max(recall["bm25"], recall["dense"])
