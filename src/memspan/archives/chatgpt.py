"""The export of ChatGPT: conversations.json, the folder it is in, or the zip it came in.

    [{"id", "title", "create_time", "mapping": {node: {"message": {"id", "author": {"role"}, "create_time",
      "content": {"content_type", "parts"}}, "parent", "children"}}, "current_node"}, ...]

A conversation is a tree, for every edit and every answer asked for again is a branch. The path to ``current_node`` is
what the user last saw: its turns become items of one session; the other branches are left out. So are the system's
turns, hidden ones, thoughts, and what tools were asked and answered, but for code that was run and what it printed. A
picture or a recording in a turn leaves a mark. Times are kept; the conversation's title and the model are metadata.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from memspan.archives.base import Item, Record, Report, attempt
from memspan.archives.conversations import conversations, opening
from memspan.errors import InvalidInput
from memspan.segmenting import parse_time

_CONVERSATION = re.compile(rb'"mapping"\s*:\s*\{')
_ROLES = ("user", "assistant")
_TO_ALL = ("all", "python", None)  # whom a turn is for; for the rest it is a call of a tool
_MARKS = {"image_asset_pointer": "[shares a picture]", "audio_asset_pointer": "[shares a recording]",
          "real_time_user_audio_video_asset_pointer": "[shares a recording]",
          "video_container_asset_pointer": "[shares a video]"}  # fmt: skip
_UNSAID = ("thoughts", "reasoning_recap", "user_editable_context", "model_editable_context", "system_error")


def recognises(path: Path, head: bytes) -> bool:
    """Whether conversations are there that are trees."""
    return _CONVERSATION.search(opening(path, head)) is not None


def read(path: Path, report: Report) -> Iterator[Record]:
    """The turns of all conversations. Raises InvalidInput naming ``path``: see ``conversations``."""
    for where, conversation in conversations(path, report):
        with attempt(report, where):
            if not isinstance(conversation, dict) or not isinstance(conversation.get("mapping"), dict):
                raise InvalidInput("mapping", "is missing: it is no conversation of ChatGPT")
            id = conversation.get("conversation_id") or conversation.get("id")
            if not isinstance(id, str):
                raise InvalidInput("id", "is missing")
            for node in _path(conversation):
                with attempt(report, f"{where} mapping[{node}]"):
                    item = _item(conversation, id, node)
                    if item is not None:
                        yield item


def _path(conversation: Mapping[str, Any]) -> list[str]:
    """The nodes from the root to the current one, or to the newest leaf where the file does not say which it is."""
    nodes = conversation["mapping"]
    node = conversation.get("current_node")
    if not isinstance(node, str) or node not in nodes:
        leaves = [key for key, each in nodes.items() if isinstance(each, dict) and not each.get("children")]
        node = max(leaves, key=lambda key: _seconds(nodes[key].get("message")), default=None)
    path: dict[str, None] = {}
    while isinstance(node, str) and node not in path and isinstance(nodes.get(node), dict):
        path[node] = None
        node = nodes[node].get("parent")
    return list(reversed(path))


def _seconds(message: Any) -> float:
    time = message.get("create_time") if isinstance(message, dict) else None
    return float(time) if isinstance(time, (int, float)) else 0.0


def _item(conversation: Mapping[str, Any], session: str, node: str) -> Item | None:
    """What was said in a node, None where it is nothing that was shown."""
    message = conversation["mapping"][node].get("message")
    if message is None:
        return None
    content, author, about = message["content"], message.get("author") or {}, message.get("metadata") or {}
    kind, role = content.get("content_type"), author.get("role")
    if kind == "execution_output" and role == "tool":
        text = str(content.get("text") or "")
    elif (
        role not in _ROLES
        or kind in _UNSAID
        or message.get("weight") == 0
        or message.get("channel") == "analysis"
        or message.get("recipient") not in _TO_ALL
        or about.get("is_visually_hidden_from_conversation")
    ):
        return None
    else:
        text = _text(content)
    if not text.strip():
        return None
    title, model = conversation.get("title"), about.get("model_slug")
    time = parse_time(message.get("create_time"), "create_time")
    return Item(
        key=f"{session}/{message.get('id') or node}",
        text=text,
        role=role,
        speaker=author.get("name") if role == "user" else None,
        session=session,
        occurred_at=time,
        recorded_at=time or parse_time(conversation.get("create_time"), "create_time"),
        metadata={name: value for name, value in (("title", title), ("model", model)) if isinstance(value, str)},
    )


def _text(content: Mapping[str, Any]) -> str:
    """The words of a turn."""
    if content.get("content_type") == "code":
        language = content.get("language")
        fence = language if isinstance(language, str) and language != "unknown" else ""
        return f"```{fence}\n{content.get('text') or ''}\n```" if content.get("text") else ""
    parts = content.get("parts")
    if not isinstance(parts, Sequence) or isinstance(parts, str):
        parts = [content.get("text"), content.get("result")]
    return "\n".join(part for part in map(_part, parts) if part.strip())


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        return ""
    said = part.get("text")
    return said if isinstance(said, str) else _MARKS.get(str(part.get("content_type")), "")
