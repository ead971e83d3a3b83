"""The export of Claude, read."""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from memspan import Memory


def message(id: str, sender: str, text: str, **more: Any) -> dict[str, Any]:
    about = {"uuid": id, "sender": sender, "text": text, "content": [{"type": "text", "text": text}]}
    return {**about, "created_at": "2025-03-01T10:00:00.123456Z", "attachments": [], "files": [], **more}


def conversation(id: str, *messages: Any) -> dict[str, Any]:
    about = {"uuid": id, "name": "Bees", "summary": "", "created_at": "2025-03-01T09:59:00.000000Z"}
    return {**about, "account": {"uuid": "acc"}, "chat_messages": list(messages)}


ASKED = message("m1", "human", "How many bees are in a hive?")
ANSWERED = message("m2", "assistant", "About 50,000.", created_at="2025-03-01T11:00:08+01:00")


def written(path: Path, *conversations: Any) -> Path:
    path.write_text(json.dumps(conversations, indent=1))
    return path


def test_turns_keep_roles_times_session_and_title(memory: Memory, tmp_path: Path) -> None:
    done = memory.import_from(written(tmp_path / "conversations.json", conversation("c1", ASKED, ANSWERED)))
    assert (done.format, done.added, done.failed) == ("claude", 2, 0)
    asked, answered = sorted(memory.get_all(session="c1"), key=lambda each: each.position)
    assert (asked.role, asked.text, dict(asked.metadata)) == ("user", "How many bees are in a hive?", {"title": "Bees"})
    assert asked.occurred_at == asked.recorded_at == datetime(2025, 3, 1, 10, 0, 0, 123456, UTC)
    assert (answered.role, answered.occurred_at) == ("assistant", datetime(2025, 3, 1, 10, 0, 8, tzinfo=UTC))


def test_tools_and_thoughts_are_left_out_and_old_exports_have_only_a_text(memory: Memory, tmp_path: Path) -> None:
    parts = [
        {"type": "thinking", "thinking": "Hm."},
        {"type": "text", "text": "I looked it up."},
        {"type": "tool_use", "name": "search", "input": {}},
        {"type": "tool_result", "content": [{"type": "text", "text": "pages"}]},
        {"type": "text", "text": "About 50,000."},
    ]
    old = {**message("m2", "assistant", "Of an old export."), "content": None}
    silent = message("m3", "human", "")
    shown = message("m1", "assistant", "I looked it up. This block is not supported.", content=parts)
    memory.import_from(written(tmp_path / "conversations.json", conversation("c1", shown, old, silent)))
    texts = [each.text for each in sorted(memory.get_all(), key=lambda each: each.position)]
    assert texts == ["I looked it up.\nAbout 50,000.", "Of an old export."]


def test_the_text_of_an_attachment_is_a_document(memory: Memory, tmp_path: Path) -> None:
    report = {
        "file_name": "hives.md",
        "file_type": "text/markdown",
        "extracted_content": "# Hives\n\nThree by the river.",
    }
    picture = {"file_name": "hive.png", "file_type": "", "extracted_content": ""}
    asked = message("m1", "human", "What do you say?", attachments=[report, picture], files=[{"file_name": "bee.jpg"}])
    done = memory.import_from(written(tmp_path / "conversations.json", conversation("c1", asked)))
    assert done.added == 2
    (said,) = memory.get_all(filters={"role": "user"})
    assert said.metadata["files"] == ["hives.md", "hive.png", "bee.jpg"]
    (part,) = memory.get_all(filters={"source": "document"})
    document = memory.document(part.document_id or "")
    assert (document.title, document.text, part.session) == ("hives.md", report["extracted_content"], "c1")
    assert part.occurred_at == said.occurred_at
    assert memory.import_from(tmp_path / "conversations.json").added == 0


def test_the_zip_is_read_from_within_and_one_that_has_grown_adds_only_what_is_new(
    memory: Memory, tmp_path: Path
) -> None:
    for chats, added in (
        ([conversation("c1", ASKED)], 1),
        ([conversation("c2", ASKED), conversation("c1", ASKED, ANSWERED)], 2),
    ):
        with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("users.json", "[]")
            archive.writestr("conversations.json", json.dumps(chats))
        done = memory.import_from(tmp_path / "data.zip")
        assert (done.format, done.added, done.updated) == ("claude", added, 0)


def test_what_is_broken_is_told_with_its_place_and_the_rest_is_imported(memory: Memory, tmp_path: Path) -> None:
    odd = conversation("c1", message("m0", "robot", "?"), 7, ASKED, message("m9", "human", "x", created_at="soon"))
    done = memory.import_from(written(tmp_path / "conversations.json", odd, {"chat_messages": []}, {"uuid": "c2"}))
    assert [each.where for each in done.problems] == [
        *(f"conversations.json[0] chat_messages[{number}]" for number in (0, 1, 3)),
        "conversations.json[1]",
        "conversations.json[2]",
    ]
    assert done.added == 1
