"""Blocks into the ledger: what is new in each is encoded, batch by batch, and each is written when it is its turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from memspan.activations.tokens import Activation
from memspan.bulk.cluster import DEPTH, Encoders
from memspan.bulk.sources import Block
from memspan.drafting import expiring
from memspan.ledger.base import Ledger
from memspan.projection import Projection
from memspan.reports import Ingested

USUAL = 1_024  # characters of the texts that a batch is made for: of longer ones it holds fewer
AHEAD = 4  # batches gathered, at least, so that texts of like length meet in one
HELD = 8  # texts that may be held in order to be written in turn, for each that the encoders may have
TENDED = 1 << 16  # segments after which the views are tended to
MOST_PROBLEMS = 1_000  # told one by one


@dataclass(slots=True)
class _Held:
    """A block whose turn has not come: contents it is ``wanting`` activations of, and those ``made`` for it."""

    block: Block
    wanting: set[bytes]
    made: dict[bytes, Activation] = field(default_factory=dict)


class Writing:
    """Writes blocks into ``namespace`` in the order they come in, and asks ``encoders`` (None where the store has no
    encoder) for batches of about ``size`` usual texts. ``told`` is what is done so far."""

    def __init__(
        self,
        ledger: Ledger,
        projection: Projection,
        namespace: str,
        encoders: Encoders | None,
        size: int,
        told: Ingested,
    ) -> None:
        self.told = told
        self._ledger = ledger
        self._projection = projection
        self._namespace = namespace
        self._encoders = encoders
        self._size = size
        count = 1 if encoders is None else encoders.count
        self._ahead = max(AHEAD, count) * size
        self._most = DEPTH * count * size + self._ahead
        self._held: deque[_Held] = deque()
        self._drafts = 0  # in held blocks
        self._asked: dict[bytes, list[_Held]] = {}  # who waits for what is to be encoded
        self._gathered: dict[bytes, str] = {}
        self._batches: deque[dict[bytes, str]] = deque()
        self._untended = 0

    def run(self, blocks: Iterable[Block]) -> Iterator[Ingested]:
        """Write them all; gives what is done so far after each."""
        for block in blocks:
            self._take(block)
            self._submit(rest=False)
            yield from self._written()
            while self._crowded():
                self._receive()
                self._submit(rest=False)
                yield from self._written()
        while self._held:
            self._submit(rest=True)
            self._receive()
            yield from self._written()

    def close(self) -> None:
        """Have the views tend to what was written last."""
        self._projection.written(self._namespace, self._untended, pending=self.told.pending)
        self._untended = 0

    def _take(self, block: Block) -> None:
        """Hold a block; what the store has no activations of yet is gathered to be encoded."""
        block = self._new(block)
        if block.idempotency is not None and self._ledger.replay(self._namespace, block.idempotency) is not None:
            self.told = replace(self.told, unchanged=self.told.unchanged + block.read)
            block = replace(block, drafts=(), documents=(), texts={}, idempotency=None)
        held = _Held(block, set())
        if self._encoders is not None:
            held.wanting = block.texts.keys() - self._ledger.known(self._namespace, list(block.texts))
        for content in held.wanting:
            if content not in self._asked:
                self._gathered[content] = block.texts[content]
            self._asked.setdefault(content, []).append(held)
        self._held.append(held)
        self._drafts += len(block.drafts)

    def _new(self, block: Block) -> Block:
        """The block without documents that are here as they are there."""
        named = {document.id for document in block.documents if document.uri is not None}
        there = {id for id in named if self._ledger.unchanged(self._namespace, id) is not None}
        if not there:
            return block
        self.told = replace(self.told, unchanged=self.told.unchanged + len(there))
        return block.without(there)

    # Encoding

    def _submit(self, *, rest: bool) -> None:
        """Give the encoders what they have room for; ``rest``: nothing more will be gathered."""
        if self._encoders is None:
            return
        idle = not self._encoders.busy and not self._batches
        if self._gathered and (rest or idle or len(self._gathered) >= self._ahead):
            self._batches.extend(batches(self._gathered, self._size))
            self._gathered = {}
        while self._batches and not self._encoders.busy:
            self._encoders.submit(self._batches.popleft())

    def _crowded(self) -> bool:
        """Whether enough was read, and what is underway goes first."""
        return bool(self._asked) and (len(self._asked) >= self._most or self._drafts >= HELD * self._most)

    def _receive(self) -> None:
        """Wait for a batch and hand its activations to the blocks that want them; what was refused nobody waits for."""
        if self._encoders is None or not self._asked:
            return
        texts, made = self._encoders.next()
        self.told = replace(self.told, encoded=self.told.encoded + len(made))
        for content in texts:
            for held in self._asked.pop(content):
                held.wanting.discard(content)
                if content in made:
                    held.made[content] = made[content]

    # Writing

    def _written(self) -> Iterator[Ingested]:
        """Write the blocks whose turn it is."""
        while self._held and not self._held[0].wanting:
            held = self._held.popleft()
            self._drafts -= len(held.block.drafts)
            self._write(self._new(held.block), held.made)
            yield self.told

    def _write(self, block: Block, made: dict[bytes, Activation]) -> None:
        told = replace(
            self.told,
            done=self.told.done + block.parts,
            read=self.told.read + block.read,
            stripped=self.told.stripped + block.stripped,
            skipped=self.told.skipped + block.skipped,
            failed=self.told.failed + len(block.problems),
            problems=(*self.told.problems, *block.problems)[:MOST_PROBLEMS],
        )
        if block.drafts:
            recorded = self._projection.recorded
            added = self._ledger.append(
                self._namespace,
                expiring(block.drafts, datetime.now(UTC)),
                documents=block.documents,
                activations=None if recorded == "null" else made,
                encoder=recorded,
                idempotency=block.idempotency,
            )
            told = replace(
                told,
                segments=told.segments + added.added,
                repeated=told.repeated + added.repeated,
                pending=told.pending + added.pending,
            )
            self._untended += added.added
        self.told = told
        if self._untended >= TENDED:
            self.close()


def batches(texts: dict[bytes, str], size: int) -> Iterator[dict[bytes, str]]:
    """Batches of texts of like length: at most ``size`` of them, and where they are longer than usual so many fewer
    that what they take when all are as long as the longest stays the same."""
    batch: dict[bytes, str] = {}
    for content, text in sorted(texts.items(), key=lambda item: len(item[1])):
        if batch and (len(batch) >= size or (len(batch) + 1) * len(text) > size * USUAL):
            yield batch
            batch = {}
        batch[content] = text
    if batch:
        yield batch
