"""The export of ChatGPT, read: by itself, from its folder, and from within its zip."""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from memspan import Memory
from memspan.errors import InvalidInput

START = 1_736_209_400.25


def conversation(id: str, *turns: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A conversation whose turns follow each other below an empty root."""
    mapping: dict[str, Any] = {"root": {"id": "root", "message": None, "parent": None, "children": []}}
    before = "root"
    for number, message in enumerate(turns):
        node = f"{id}-{number}"
        mapping[node] = {"id": node, "message": {"id": node, **message}, "parent": before, "children": []}
        mapping[before]["children"].append(node)
        before = node
    about = {"title": "Bees", "create_time": START, "update_time": START + 90, "mapping": mapping}
    return {**about, "current_node": before, "conversation_id": id, "id": id, **more}


def turn(role: str, *parts: Any, seconds: float | None = 0.0, kind: str = "text", **more: Any) -> dict[str, Any]:
    content = {"content_type": kind, "parts": list(parts)}
    time = None if seconds is None else START + seconds
    about = {"author": {"role": role, "name": None, "metadata": {}}, "create_time": time, "content": content}
    return {**about, "weight": 1.0, "recipient": "all", "metadata": {}, **more}


ASKED = turn("user", "How many bees are in a hive?")
ANSWERED = turn("assistant", "About 50,000.", seconds=8, metadata={"model_slug": "gpt-4o"})


def written(path: Path, *conversations: Any) -> Path:
    path.write_text(json.dumps(conversations))
    return path


def said(memory: Memory) -> list[tuple[str | None, str]]:
    return [
        (each.role, each.text)
        for each in sorted(memory.get_all(), key=lambda each: (each.session or "", each.position))
    ]


def test_what_was_said_keeps_roles_times_session_and_title(memory: Memory, tmp_path: Path) -> None:
    done = memory.import_from(written(tmp_path / "conversations.json", conversation("c1", ASKED, ANSWERED)))
    assert (done.format, done.added, done.failed) == ("chatgpt", 2, 0)
    asked, answered = sorted(memory.get_all(session="c1"), key=lambda each: each.position)
    assert (asked.role, asked.source, asked.text) == ("user", "user", "How many bees are in a hive?")
    assert asked.occurred_at == asked.recorded_at == datetime.fromtimestamp(START, UTC)
    assert (answered.role, answered.occurred_at) == ("assistant", datetime.fromtimestamp(START + 8, UTC))
    assert dict(answered.metadata) == {"title": "Bees", "model": "gpt-4o"}
    assert memory.search("bees", as_of=datetime.fromtimestamp(START + 1, UTC))


def test_only_the_path_to_the_current_node_was_said(memory: Memory, tmp_path: Path) -> None:
    chat = conversation("c1", ASKED, ANSWERED)
    other = {"id": "old", "message": {"id": "old", **turn("assistant", "A million.")}, "parent": "c1-0", "children": []}
    chat["mapping"]["old"] = other
    chat["mapping"]["c1-0"]["children"].insert(0, "old")
    unsaid = conversation("c2", ASKED, ANSWERED, current_node=None)
    memory.import_from(written(tmp_path / "conversations.json", chat, unsaid))
    assert [text for _, text in said(memory)] == ["How many bees are in a hive?", "About 50,000."] * 2


def test_what_was_not_shown_is_left_out_and_pictures_leave_a_mark(memory: Memory, tmp_path: Path) -> None:
    hidden = {"is_visually_hidden_from_conversation": True}
    picture = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://file-1", "width": 1}
    spoken = {"content_type": "audio_transcription", "text": "And in winter?", "direction": "in"}
    code = {"content_type": "code", "language": "unknown", "text": "print(5 * 10_000)"}
    turns = [
        turn("system", ""),
        turn("user", "My name is Ana.", metadata=hidden),
        turn("user", picture, "What is in this hive?", kind="multimodal_text"),
        turn("user", spoken, {"content_type": "real_time_user_audio_video_asset_pointer"}, kind="multimodal_text"),
        turn("assistant", weight=0),
        {**turn("assistant"), "content": {"content_type": "thoughts", "thoughts": [{"content": "Hm."}]}},
        {**turn("assistant", recipient="python"), "content": code},
        {**turn("tool"), "content": {"content_type": "execution_output", "text": "50000"}},
        {**turn("assistant", recipient="web"), "content": {**code, "text": 'search("bees")'}},
        turn("tool", "pages about bees"),
        turn("assistant", "Fewer.", channel="final"),
    ]
    memory.import_from(written(tmp_path / "conversations.json", conversation("c1", *turns)))
    assert said(memory) == [
        ("user", "[shares a picture]\nWhat is in this hive?"),
        ("user", "And in winter?\n[shares a recording]"),
        ("assistant", "```\nprint(5 * 10_000)\n```"),
        ("tool", "50000"),
        ("assistant", "Fewer."),
    ]


@pytest.mark.parametrize("form", ["folder", "zip", "parts", "one"])
def test_folder_zip_several_parts_and_one_conversation_are_read(memory: Memory, tmp_path: Path, form: str) -> None:
    chats = [conversation("c1", ASKED), conversation("c2", ANSWERED)]
    (tmp_path / "export").mkdir()
    path = tmp_path / "export"
    if form == "folder":
        written(path / "conversations.json", *chats)
        written(path / "user.json", {"mapping": {}})
    elif form == "one":
        path = path / "conversation.json"
        path.write_text(json.dumps(chats[0], indent=2))
    else:
        path = tmp_path / "export.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("chat.html", "<html>")
            if form == "zip":
                archive.writestr("conversations.json", json.dumps(chats))
            else:
                for number, chat in enumerate(chats):
                    archive.writestr(f"ChatGPT/conversations-{number:03}.json", json.dumps([chat]))
    done = memory.import_from(path)
    assert (done.format, done.added, done.failed) == ("chatgpt", 1 if form == "one" else 2, 0)
    assert memory.import_from(path).added == 0


def test_an_export_that_has_grown_adds_only_what_is_new(memory: Memory, tmp_path: Path) -> None:
    file = written(tmp_path / "conversations.json", conversation("c1", ASKED))
    memory.import_from(file)
    assert memory.import_from(file).added == 0
    done = memory.import_from(written(file, conversation("c2", ASKED), conversation("c1", ASKED, ANSWERED)))
    assert (done.added, done.updated) == (2, 0)


def test_what_is_broken_is_told_with_its_place_and_the_rest_is_imported(memory: Memory, tmp_path: Path) -> None:
    broken = conversation("c1", ASKED, ANSWERED, turn("user", "Thanks!", seconds=20))
    broken["mapping"]["c1-1"]["message"]["content"] = "?"
    late = conversation("c2", turn("user", "When?", create_time="soon"))
    loop = conversation("c3", ASKED, ANSWERED)
    loop["mapping"]["c3-0"]["parent"] = "c3-1"
    odd = [
        broken,
        7,
        {"title": "no mapping"},
        late,
        loop,
        {**conversation("c4", ASKED), "id": None, "conversation_id": 7},
    ]
    done = memory.import_from(written(tmp_path / "conversations.json", *odd))
    assert [each.where for each in done.problems] == [
        "conversations.json[0] mapping[c1-1]",
        "conversations.json[1]",
        "conversations.json[2]",
        "conversations.json[3] mapping[c2-0]",
        "conversations.json[5]",
    ]
    assert done.added == 4


def test_a_zip_that_holds_far_more_than_it_weighs_is_refused(memory: Memory, tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("conversations.json", "w") as file,
    ):
        file.write(json.dumps([conversation("c1", ASKED)]).encode()[:-1])
        for _ in range(80):
            file.write(b" " * (1 << 20))
        file.write(b"]")
    with pytest.raises(InvalidInput, match="holds over 100 times what it weighs"):
        memory.import_from(tmp_path / "bomb.zip")


def test_names_in_a_zip_lead_nowhere(memory: Memory, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with zipfile.ZipFile(inside / "export.zip", "w") as archive:
        archive.writestr("../../conversations.json", json.dumps([conversation("c1", ASKED)]))
        archive.writestr("/etc/conversations.json", json.dumps([conversation("c2", ASKED)]))
    before = sorted(tmp_path.rglob("*.json"))
    assert memory.import_from(inside / "export.zip").added == 2
    assert sorted(tmp_path.rglob("*.json")) == before == []


def test_a_damaged_zip_and_one_without_conversations_are_refused(memory: Memory, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("photo.json", "[]")
    with pytest.raises(InvalidInput, match=r"holds no conversations\.json"):
        memory.import_from(tmp_path / "other.zip", "chatgpt")
    with zipfile.ZipFile(tmp_path / "bad.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversations.json", json.dumps([conversation(f"c{number}", ASKED) for number in range(200)]))
    raw = bytearray((tmp_path / "bad.zip").read_bytes())
    raw[400:500] = bytes(100)
    (tmp_path / "bad.zip").write_bytes(raw)
    with pytest.raises(InvalidInput, match=r"bad\.zip cannot be read|is not JSON"):
        memory.import_from(tmp_path / "bad.zip", "chatgpt")


def test_json_that_is_nested_too_deep_or_cut_short_is_refused(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "conversations.json"
    file.write_text(json.dumps([conversation("c1", ASKED)])[:-1] + ', {"mapping": ' + "[" * 100_000)
    with pytest.raises(InvalidInput, match="nested too deep"):
        memory.import_from(file)
    file.write_text(json.dumps([conversation("c1", ASKED), conversation("c2", ASKED)])[:-40])
    with pytest.raises(InvalidInput, match="is not JSON"):
        memory.import_from(file)
    assert len(memory.get_all()) <= 1
