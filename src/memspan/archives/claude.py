"""The export of Claude: conversations.json, the folder it is in, or the zip it came in.

    [{"uuid", "name", "created_at", "chat_messages": [{"uuid", "text", "sender", "created_at",
      "content": [{"type": "text", "text"}, ...], "attachments": [{"file_name", "extracted_content"}], "files"}]}, ...]

Every turn becomes an item of the session that its conversation is, with its time and the conversation's name as
``title`` in the metadata; the text of an attachment becomes a document. Left out are thoughts, what tools were asked
and answered, pictures and other files (their names are kept in the metadata), and the other files of the export.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from memspan.archives.base import Item, Record, Report, attempt
from memspan.archives.conversations import conversations, opening
from memspan.errors import InvalidInput
from memspan.segmenting import parse_time, shown

_CONVERSATION = re.compile(rb'"chat_messages"\s*:\s*\[')
_ROLES = {"human": "user", "user": "user", "assistant": "assistant"}


def recognises(path: Path, head: bytes) -> bool:
    """Whether conversations are there that are lists of chat messages."""
    return _CONVERSATION.search(opening(path, head)) is not None


def read(path: Path, report: Report) -> Iterator[Record]:
    """The turns and attachments of all conversations. Raises InvalidInput naming ``path``: see ``conversations``."""
    for where, conversation in conversations(path, report):
        with attempt(report, where):
            if not isinstance(conversation, dict) or not isinstance(conversation.get("chat_messages"), list):
                raise InvalidInput("chat_messages", "is missing: it is no conversation of Claude")
            if not isinstance(conversation.get("uuid"), str):
                raise InvalidInput("uuid", "is missing")
            for number, message in enumerate(conversation["chat_messages"]):
                with attempt(report, f"{where} chat_messages[{number}]"):
                    yield from _items(conversation, message)


def _items(conversation: Mapping[str, Any], message: Mapping[str, Any]) -> Iterator[Item]:
    """A turn, where anything was said, and its attachments."""
    session, id, sender = conversation["uuid"], message["uuid"], message.get("sender")
    if sender not in _ROLES:
        raise InvalidInput("sender", f"{shown(sender)} is nobody known")
    key, time = f"{session}/{id}", parse_time(message.get("created_at"), "created_at")
    recorded_at = time or parse_time(conversation.get("created_at"), "created_at")
    metadata: dict[str, Any] = {"title": conversation["name"]} if conversation.get("name") else {}
    attached = [each for each in message.get("attachments") or () if isinstance(each, dict)]
    names = [each.get("file_name") for each in (*attached, *(message.get("files") or ())) if isinstance(each, dict)]
    if files := [name for name in names if isinstance(name, str) and name]:
        metadata["files"] = files
    if (text := _text(message)).strip():
        yield Item(
            key=key,
            text=text,
            role=_ROLES[sender],
            session=session,
            occurred_at=time,
            recorded_at=recorded_at,
            metadata=metadata,
        )
    for number, attachment in enumerate(attached):
        if str(attachment.get("extracted_content") or "").strip():
            yield _document(attachment, f"{key}/{number}", session, time, recorded_at, metadata)


def _document(
    attachment: Mapping[str, Any],
    key: str,
    session: str,
    time: datetime | None,
    recorded_at: datetime | None,
    metadata: Mapping[str, Any],
) -> Item:
    name = str(attachment.get("file_name") or "attachment")
    return Item(
        key=key,
        text=attachment["extracted_content"],
        session=session,
        occurred_at=time,
        recorded_at=recorded_at,
        source="document",
        metadata={each: value for each, value in metadata.items() if each != "files"},
        uri=f"claude:{key}/{quote(name)}",
        title=name,
        media="markdown" if name.lower().endswith((".md", ".markdown")) else "text",
    )


def _text(message: Mapping[str, Any]) -> str:
    """What was said: the parts that are text, or in old exports the text itself."""
    parts = message.get("content") or ()
    said = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    return "\n".join(each for each in said if isinstance(each, str) and each.strip()) or str(message.get("text") or "")
