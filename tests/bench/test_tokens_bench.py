"""The curve of bytes against recall, end to end on a small made-up set."""

from __future__ import annotations

import json
from pathlib import Path
from string import ascii_uppercase

import pytest

from memspan.bench import tokens
from memspan.errors import InvalidInput
from memspan.testing import WordEncoder


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A HotpotQA of 24 passages and two questions, and an encoder whose token activations can be kept."""
    basis = WordEncoder().basis()
    for module in ("memspan.store", "memspan.bench.tokens"):
        monkeypatch.setattr(f"{module}.shipped", lambda id: basis)
    folder = tmp_path / "hipporag"
    folder.mkdir()
    names = [f"{letter}el{letter.lower()}or" for letter in ascii_uppercase[:24]]
    passages = {f"Town {name}": [f"The town of {name} lies on the river {name[::-1]}."] for name in names}
    asked = [
        {"question": f"On which river lies {name}?", "supporting_facts": [[f"Town {name}", 0]]}
        for name in names[3:16:12]
    ]
    (folder / "hotpotqa_train_corpus.json").write_text(json.dumps(passages))
    (folder / "hotpotqa_train.json").write_text(json.dumps(asked))
    return tmp_path


def test_every_level_is_measured_alone_and_in_the_engine_and_what_is_not_there_is_skipped_by_name(data: Path) -> None:
    told: list[str] = []
    report = tokens.run(
        data, names=("hotpotqa", "qmsum"), encoder=WordEncoder(), progress=lambda done, total, what: told.append(what)
    )
    found = report["sets"]["hotpotqa"]
    assert found["questions"] == 2
    assert found["engine"]["1bit"]["recall@10"] == found["engine"]["f16"]["recall@10"] == 1
    assert found["alone"]["f16 128"]["against f16 128"] == {"mean": 0, "95": [0, 0]}
    assert report["bytes"]["1bit 128"] == 16
    assert "val.jsonl" in report["skipped"]["qmsum"]
    assert told[0].startswith("hotpotqa")
    shown = tokens.table(report)
    assert "engine none                0      1.000" in shown
    assert "qmsum was skipped: put val.jsonl" in shown


def test_a_set_that_is_unknown_or_a_folder_without_any_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="names: there is no 'squad'"):
        tokens.run(data, names=("squad",), encoder=WordEncoder())
    with pytest.raises(InvalidInput, match="data"):
        tokens.run(tmp_path / "nowhere", encoder=WordEncoder())
    with pytest.raises(InvalidInput, match="encoder"):
        tokens.run(data, encoder="none")
