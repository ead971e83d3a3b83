"""What one call adds, as drafts: cut into pieces, placed in a document or session, hashed."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from typing import Any

from memspan import arguments
from memspan.analysis import terms
from memspan.ledger.base import DocumentDraft, indexed_text
from memspan.records import NOTHING, Draft, Message, Piece, Scope, Source
from memspan.segmenting import check_text

ROLES: Mapping[str, Source] = {"user": "user", "assistant": "assistant", "tool": "tool", "system": "system"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What all segments of one call share."""

    scope: Scope
    category: tuple[str, ...] = ()
    importance: float = 0.5
    metadata: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    occurred_at: datetime | None = None
    source: Source | None = None


class Batch:
    """The drafts of one call in order, the documents they belong to, and the texts to encode by their hash.

    ``cut`` is called with a text and its media and gives its pieces.
    """

    def __init__(self, cut: Callable[[str, str], list[Piece]], common: Common) -> None:
        self.drafts: list[Draft] = []
        self.documents: list[DocumentDraft] = []
        self.texts: dict[bytes, str] = {}
        self._cut = cut
        self._common = common
        self._seen: Counter[bytes] = Counter()

    def text(self, text: str) -> None:
        """A text that is no message: one segment, or a document of several."""
        self._pieces(text, Draft(piece=Piece(text=""), scope=self._common.scope, source=self._common.source or "user"))

    def message(self, turn: Message, argument: str) -> None:
        """One turn; ``argument`` is how errors call it."""
        common = self._common
        draft = Draft(
            piece=Piece(text=""),
            scope=common.scope,
            role=turn.role,
            speaker=arguments.name(f"{argument}.name", turn.name),
            source=common.source or ROLES.get(turn.role, "user"),
            occurred_at=turn.time,
            metadata=arguments.metadata(turn.metadata, f"{argument}.metadata"),
        )
        self._pieces(check_text(turn.content, f"{argument}.content"), draft)

    def document(self, text: str, media: str, document: DocumentDraft) -> None:
        """A document read from somewhere, claimed before."""
        self.documents.append(document)
        for position, piece in enumerate(self._cut(text, media)):
            self._add(
                Draft(
                    piece=piece,
                    scope=self._common.scope,
                    document_id=document.id,
                    position=position,
                    source=self._common.source or "document",
                )
            )

    def claim(self, text: str, media: str, *, uri: str | None, title: str | None) -> DocumentDraft:
        """The document ``text`` makes: its id follows from scope, uri and text, so that the same is the same."""
        digest = sha256(text.encode()).digest()
        owner = _hashed(*_scope_key(self._common.scope), uri or "")
        key = _hashed(owner, digest, 0 if uri else self._seen[digest])
        if uri is None:
            self._seen[digest] += 1
        id = str(_uuid8(key))
        return DocumentDraft(id=id, owner=owner, uri=uri, title=title, media=media, sha256=digest)

    def fingerprint(self) -> bytes:
        """32 bytes that two calls share when they say the same."""
        hashed = sha256()
        for draft in self.drafts:
            about = (draft.category, draft.importance, str(draft.occurred_at), draft.source)
            hashed.update(draft.identity + json.dumps([about, dict(draft.metadata)], sort_keys=True).encode())
        return hashed.digest()

    def _pieces(self, text: str, like: Draft) -> None:
        pieces = self._cut(text, "text")
        document = None
        if len(pieces) > 1:
            document = self.claim(text, "text", uri=None, title=None)
            self.documents.append(document)
        for index, piece in enumerate(pieces):
            self._add(
                replace(
                    like,
                    piece=piece,
                    document_id=None if document is None else document.id,
                    position=index if document is not None and like.role is None else None,
                )
            )

    def _add(self, draft: Draft) -> None:
        common = self._common
        draft = replace(
            draft,
            category=common.category,
            importance=common.importance,
            metadata={**common.metadata, **draft.metadata},
            occurred_at=draft.occurred_at or common.occurred_at,
        )
        same = identity(draft, 0)
        draft = indexed(draft, self._seen[same])
        self._seen[same] += 1
        self.texts[draft.content] = indexed_text(draft.piece.text, draft.speaker, draft.piece.heading)
        self.drafts.append(draft)


def indexed(draft: Draft, ordinal: int) -> Draft:
    """``draft`` with its terms and hashes; ``ordinal`` counts equal segments within one call."""
    text = indexed_text(draft.piece.text, draft.speaker, draft.piece.heading)
    return replace(
        draft,
        terms=tuple(terms(text)),
        content=sha256(text.encode()).digest()[:16],
        identity=identity(draft, ordinal),
    )


def identity(draft: Draft, ordinal: int) -> bytes:
    """16 bytes that are equal for the same content in the same scope: what makes a second add a repeat."""
    return _hashed(
        *_scope_key(draft.scope),
        draft.document_id or "",
        draft.role or "",
        draft.speaker or "",
        str(draft.occurred_at),
        draft.piece.text,
        ordinal,
    )


def _uuid8(key: bytes) -> uuid.UUID:
    """A UUID of version 8 (RFC 9562, section 5.8) from 16 bytes of a hash."""
    value = int.from_bytes(key) & ~(0xF << 76 | 0b11 << 62)
    return uuid.UUID(int=value | 8 << 76 | 0b10 << 62)


def _scope_key(scope: Scope) -> tuple[str, ...]:
    return (scope.user_id or "", scope.agent_id or "", scope.run_id or "", scope.session or "")


def _hashed(*parts: str | bytes | int) -> bytes:
    hashed = sha256(b"memspan identity 1\0")
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode()
        hashed.update(b"%d:" % len(raw) + raw)
    return hashed.digest()[:16]
