"""`bench conflicts`: which marked updates are among the proposals, on a small chat in BEAM's shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memspan.bench import conflicts
from memspan.errors import InvalidInput
from memspan.testing import WordEncoder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    said = [
        ("user", "The daily call quota of the API key is 1,000 calls."),
        ("assistant", "The daily call quota of the API key is 9 calls."),
        ("user", "The daily call quota of the API key has been increased to 1,200 calls."),
        ("user", "Lunch was soup."),
        ("user", "I have never written Flask routes before."),
    ]
    messages = [{"id": at, "role": role, "content": text} for at, (role, text) in enumerate(said)]
    probing = {
        "knowledge_update": [
            {"question": "Quota?", "source_chat_ids": {"original_info": [0], "updated_info": [2]}},
            {"question": "Lunch?", "source_chat_ids": {"original_info": [3], "updated_info": [3]}},
        ],
        "contradiction_resolution": [
            {"question": "Flask?", "source_chat_ids": {"first_statement": [4], "second_statement": [0]}}
        ],
    }
    chat = tmp_path / "data" / "beam" / "100K" / "1"
    (chat / "probing_questions").mkdir(parents=True)
    (chat / "chat.json").write_text(json.dumps([{"batch_number": 1, "turns": [messages]}]))
    (chat / "probing_questions" / "probing_questions.json").write_text(json.dumps(probing))
    return tmp_path / "data"


def test_marked_pairs_of_two_messages_are_looked_for_among_the_proposals(data: Path, tmp_path: Path) -> None:
    report = conflicts.run(data, ("beam",), encoder=WordEncoder(), pairs=tmp_path / "pairs.jsonl")
    beam = report["sets"]["beam"]
    assert (beam["statements"], beam["proposals"]["0.5"], beam["reasons"]) == (4, 1, {"number": 1})
    assert (beam["updates"]["pairs"], beam["updates"]["0.5"]) == (1, 1)
    assert (beam["contradictions"]["pairs"], beam["contradictions"]["0.3"]) == (1, 0)
    (line,) = (tmp_path / "pairs.jsonl").read_text().splitlines()
    assert json.loads(line)["reasons"] == ["number"]
    assert "quota" not in line
    assert "| updates, of 1 | 1 |" in conflicts.table(report)


def test_without_an_encoder_the_bench_says_so(data: Path) -> None:
    with pytest.raises(InvalidInput, match="encoder"):
        conflicts.run(data, ("beam",), encoder="none")
