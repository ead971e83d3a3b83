"""What one call adds, as drafts: cut into pieces, placed in a document or session, hashed."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from typing import Any

from memspan import arguments
from memspan.analysis import terms
from memspan.encoders.base import Encoder
from memspan.kinds import KINDS
from memspan.ledger.base import DocumentDraft, Revision, analysed_text, encoded_text, names_in
from memspan.quotation import Stripped, repeated_words, stripped
from memspan.records import NOTHING, Draft, Kind, Message, Piece, Scope, Segment, Source
from memspan.redaction import Redactor, redacted
from memspan.segmenting import WordTokenizer, check_text, cut

MARGIN = 16  # tokens of the encoder's window kept free for its own marks and the name of the speaker
LEXICAL_WINDOW = 256
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
    kind: Kind | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    expires_at: datetime | None = None


class Batch:
    """The drafts of one call in order, the documents they belong to, and the texts to encode by their hash.

    ``cut`` is called with a text and its media and gives its pieces. ``seen`` counts what several batches say.
    ``redactor`` replaces what must not be stored. ``stripped`` counts the contexts that were taken out of what was
    given, ``skipped`` the texts of which nothing was left.
    """

    def __init__(
        self,
        cut: Callable[[str, str], list[Piece]],
        common: Common,
        seen: Counter[bytes] | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        self.drafts: list[Draft] = []
        self.documents: list[DocumentDraft] = []
        self.texts: dict[bytes, str] = {}
        self.stripped = 0
        self.skipped = 0
        self._cut = cut
        self._common = common
        self._seen: Counter[bytes] = Counter() if seen is None else seen
        self._redactor = redactor

    def admitted(self, text: str) -> str:
        """What of ``text`` may be stored, counted; empty where nothing is left."""
        left = admitted(text, self._redactor)
        self.stripped += left.contexts
        self.skipped += not left.text
        return left.text

    def text(self, text: str) -> None:
        """A text that is no message: one segment, or a document of several."""
        text = self.admitted(text)
        pieces, document = self._cut_up(text, None, None, self._common.occurred_at)
        for index, piece in enumerate(pieces):
            self._add(piece, document, position=None if document is None else index)

    def message(self, turn: Message, argument: str) -> None:
        """One turn; ``argument`` is how errors call it."""
        speaker = arguments.name(f"{argument}.name", turn.name)
        own = arguments.metadata(turn.metadata, f"{argument}.metadata")
        occurred_at = turn.time or self._common.occurred_at
        text = self.admitted(check_text(turn.content, f"{argument}.content"))
        pieces, document = self._cut_up(text, turn.role, speaker, occurred_at)
        for piece in pieces:
            self._add(piece, document, role=turn.role, speaker=speaker, occurred_at=occurred_at, metadata=own)

    def document(self, text: str, media: str, document: DocumentDraft) -> None:
        """A document read from somewhere, admitted and claimed before."""
        self.documents.append(document)
        for position, piece in enumerate(self._cut(text, media)):
            self._add(piece, document, position=position)

    def derived(
        self, text: str, sources: tuple[str, ...], metadata: Mapping[str, Any], occurred_at: datetime | None
    ) -> None:
        """A text made of the segments ``sources``, which nobody said: a segment, or several where it is too long for
        one; never a repeat of what was said, but of the same that was derived before."""
        for piece in self._cut(redacted(text, self._redactor), "text"):
            self._add(piece, None, position=0, occurred_at=occurred_at, metadata=metadata)
            draft = self.drafts[-1]
            same = hashed(identity(draft), "derived", metadata.get("what"))
            self.drafts[-1] = replace(draft, derived_from=sources, identity=same)

    def claim(
        self, text: str, media: str, *, uri: str | None, title: str | None, said: tuple[str | None, ...] = ()
    ) -> DocumentDraft:
        """The document ``text`` makes: its id follows from scope, uri and text, so that the same is the same.

        ``said``: by whom and when, for a text without a uri; the same words at another time are another document.
        """
        digest = sha256(text.encode()).digest()
        owner = hashed(*_scope_key(self._common.scope), uri)
        key = hashed(owner, digest, *said)
        if uri is None:
            again = self._seen[key]
            self._seen[key] += 1
            key = hashed(key, again)
        id = str(uuid8(key))
        return DocumentDraft(id=id, owner=owner, uri=uri, title=title, media=media, sha256=digest)

    def echoes(self) -> list[tuple[bytes, bytes]]:
        """The assistant's turns, each by the content it would repeat word for word if somebody else had said it, and
        by its identity."""
        return [
            (content_key(words), draft.identity)
            for draft in self.drafts
            if draft.role == "assistant" and draft.document_id is None
            for words in repeated_words(draft.piece.text)
        ]

    def leave_out(self, identities: Collection[bytes]) -> None:
        """Store all but the segments with these identities."""
        self.skipped += len(identities)
        self.drafts = [draft for draft in self.drafts if draft.identity not in identities]
        kept = {draft.content for draft in self.drafts}
        self.texts = {content: text for content, text in self.texts.items() if content in kept}

    def fingerprint(self) -> bytes:
        """32 bytes that two calls share when they say the same."""
        hashed = sha256()
        for draft in self.drafts:
            about: tuple[object, ...] = (draft.category, draft.importance, str(draft.occurred_at), draft.source)
            later = (draft.kind, *map(str, (draft.valid_from, draft.valid_to, draft.expires_at)))
            about += later if later != ("episodic", "None", "None", "None") else ()
            hashed.update(draft.identity + json.dumps([about, dict(draft.metadata)], sort_keys=True).encode())
        return hashed.digest()

    def _cut_up(
        self, text: str, role: str | None, speaker: str | None, occurred_at: datetime | None
    ) -> tuple[list[Piece], DocumentDraft | None]:
        pieces = self._cut(text, "text")
        if len(pieces) <= 1:
            return pieces, None
        document = self.claim(text, "text", uri=None, title=None, said=(role, speaker, str(occurred_at)))
        self.documents.append(document)
        return pieces, document

    def _add(
        self,
        piece: Piece,
        document: DocumentDraft | None,
        *,
        position: int | None = None,
        role: str | None = None,
        speaker: str | None = None,
        occurred_at: datetime | None = None,
        metadata: Mapping[str, Any] = NOTHING,
    ) -> None:
        common = self._common
        when = occurred_at or common.occurred_at
        text = encoded_text(piece.text, speaker, piece.heading)
        draft = Draft(
            piece=piece,
            scope=common.scope,
            document_id=None if document is None else document.id,
            position=position,
            role=role,
            speaker=speaker,
            category=common.category,
            importance=common.importance,
            source=common.source or ROLES.get(role or "user", "user"),
            occurred_at=when,
            kind=common.kind or ("semantic" if common.source == "document" else "episodic"),
            valid_from=common.valid_from,
            valid_to=common.valid_to,
            expires_at=common.expires_at,
            metadata={**common.metadata, **metadata} if metadata else common.metadata,
            terms=tuple(terms(analysed_text(text, when))),
            names=names_in(text),
            content=content_key(text),
        )
        first = identity(draft)
        again = self._seen[first]
        self._seen[first] += 1
        self.texts[draft.content] = text
        # equal segments within one call are all kept; said again in another call they are repeats
        self.drafts.append(replace(draft, identity=hashed(first, again) if again else first))


def pieces_for(encoder: Encoder | None, text: str, media: str) -> list[Piece]:
    """A text as pieces that fit the window of an encoder; where there is none, as keywords want them."""
    tokenizer = WordTokenizer() if encoder is None else encoder.tokenizer
    window = LEXICAL_WINDOW if encoder is None else encoder.window
    return cut(text, tokenizer=tokenizer, window=max(window - MARGIN, 8), media=media)


def admitted(text: str, redactor: Redactor | None) -> Stripped:
    """What of ``text`` may be stored: without recalled contexts, redacted; empty where nothing is left."""
    left = stripped(text)
    kept = redacted(left.text, redactor)
    return replace(left, text=kept if kept.strip() else "")


def draft_of(segment: Segment, identity: bytes) -> Draft:
    """What was written to make ``segment``."""
    return replace(_redraft(segment, None, {})[0], identity=identity)


def expiring(drafts: Iterable[Draft], now: datetime) -> list[Draft]:
    """The drafts; those of a kind with a time to live end after it, unless they say when."""
    ends = {name: None if kind.ttl is None else now + kind.ttl for name, kind in KINDS.items()}
    return [replace(draft, expires_at=draft.expires_at or ends[draft.kind]) for draft in drafts]


def redrafted(old: Segment, piece: Piece | None, changes: Mapping[str, Any]) -> tuple[Revision, str]:
    """``old`` as it shall be from now on, with another ``piece`` where given, and the text to encode for it."""
    draft, text = _redraft(old, piece, changes)
    return Revision(id=old.id, version=old.version, draft=draft), text


def _redraft(old: Segment, piece: Piece | None, changes: Mapping[str, Any]) -> tuple[Draft, str]:
    kept = Piece(text=old.text, gap=old.gap, tail=old.tail, heading=old.heading, tokens=old.tokens)
    if piece is not None:
        kept = replace(piece, gap=old.gap, tail=old.tail, heading=old.heading)
    text = encoded_text(kept.text, old.speaker, kept.heading)
    draft = Draft(
        piece=kept,
        scope=Scope(
            namespace=old.namespace,
            user_id=old.user_id,
            agent_id=old.agent_id,
            run_id=old.run_id,
            session=old.session,
        ),
        document_id=old.document_id,
        position=old.position,
        role=old.role,
        speaker=old.speaker,
        category=changes.get("category", old.category),
        importance=changes.get("importance", old.importance),
        source=changes.get("source", old.source),
        occurred_at=changes.get("occurred_at", old.occurred_at),
        kind=changes.get("kind", old.kind),
        state=changes.get("state", old.state),
        valid_from=changes.get("valid_from", old.valid_from),
        valid_to=changes.get("valid_to", old.valid_to),
        expires_at=changes.get("expires_at", old.expires_at),
        metadata=changes.get("metadata", old.metadata),
        names=names_in(text),
        content=content_key(text),
    )
    unchanged = (kept.text, draft.occurred_at) == (old.text, old.occurred_at)
    draft = replace(
        draft,
        terms=tuple(terms(analysed_text(text, draft.occurred_at))),
        identity=b"" if unchanged else identity(draft),
    )
    return draft, text


def content_key(text: str) -> bytes:
    """16 bytes that name what the encoder makes of ``text``."""
    return sha256(text.encode()).digest()[:16]


def identity(draft: Draft) -> bytes:
    """16 bytes that are equal for the same content in the same scope: what makes a second add a repeat."""
    return _identity(draft, draft.scope, draft.piece.text)


def identity_of(segment: Segment) -> bytes:
    """The same of a segment, unless it was one of several equal ones of one call."""
    return _identity(segment, segment, segment.text)


def _identity(said: Draft | Segment, scope: Scope | Segment, text: str) -> bytes:
    where = (*_scope_key(scope), said.document_id, said.role, said.speaker, str(said.occurred_at))
    return hashed(*where, text)


def uuid8(key: bytes) -> uuid.UUID:
    """A UUID of version 8 (RFC 9562, section 5.8) from 16 bytes of a hash."""
    value = int.from_bytes(key) & ~(0xF << 76 | 0b11 << 62)
    return uuid.UUID(int=value | 8 << 76 | 0b10 << 62)


def _scope_key(scope: Scope | Segment) -> tuple[str | None, ...]:
    return (scope.user_id, scope.agent_id, scope.run_id, scope.session)


def hashed(*parts: str | bytes | int | None) -> bytes:
    """16 bytes that name these parts in this order."""
    return sha256(b"memspan identity 1\0" + repr(parts).encode()).digest()[:16]
