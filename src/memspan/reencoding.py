"""Encoding a store anew, beside the encoding in use: searches and writes go on, and one transaction switches over.

What is made stands in the ledger as it comes, so a run that is broken off goes on where it was. Texts are not cut
again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from memspan.activations.tokens import Basis, unit
from memspan.encoders.base import Encoder
from memspan.errors import EncoderError, InvalidInput, StoreBusy
from memspan.ledger.base import Ledger
from memspan.projection import BATCH, CANARY, Projection
from memspan.views.base import Progress


def reencode(
    ledger: Ledger,
    target: Projection,
    basis: str,
    *,
    vectors: bool,
    progress: Progress | None = None,
) -> int:
    """Make every activation anew by ``target``, which feeds no views, and switch to them; returns how many were made.

    ``vectors``: they are others than before, so views built of them go. Texts that the encoder refuses wait afterwards.
    What the old encoding holds is left for ``Ledger.drop_encodings``.
    Raises StoreBusy where another process is at it, and what the encoder raises when it takes nothing at all: then the
    store is as it was.
    """
    with alone(ledger):
        target.encode([CANARY])
        encoding = ledger.begin_encoding(target.recorded)
        made, after = 0, dict[str, int]()
        left = ledger.count_unencoded(encoding)
        while True:
            for namespace in ledger.namespaces():
                while batch := ledger.unencoded(namespace, encoding, after.get(namespace, 0), BATCH):
                    done = target.activated(batch)
                    ledger.keep_encoding(namespace, done, encoding)
                    made, after[namespace] = made + len(done), batch[-1].seq
                    if progress is not None:
                        progress(made, max(left, made), "encoding anew")
            if ledger.use_encoding(encoding, target.recorded, basis, after, vectors=vectors):
                return made


@contextmanager
def alone(ledger: Ledger) -> Iterator[None]:
    """No other process encodes this store anew meanwhile. Raises StoreBusy where one does."""
    with ledger.turn("reencode") as only:
        if not only:
            problem = "the store is being encoded anew by another process"
            raise StoreBusy(problem, mend="let it finish: `memspan stats` shows how far it is")
        yield


def fitted(encoder: Encoder, texts: Sequence[str], dims: int | None, progress: Progress | None = None) -> Basis:
    """The basis that fits the token activations of ``texts``, of ``dims`` axes or all. Raises EncoderError where the
    encoder gives none, InvalidInput where there is too little text."""
    total, squares, mean = 0, np.zeros((encoder.dim,) * 2), np.zeros(encoder.dim)
    for start in range(0, len(texts), BATCH):
        tokens = encoder.encode(texts[start : start + BATCH]).tokens
        if not tokens:
            problem = f"encoder {encoder.id} gives no token activations"
            raise EncoderError(problem, mend="use one that does, such as 'minilm'")
        rows = unit(np.concatenate(tokens)).astype(np.float64)
        total, mean, squares = total + len(rows), mean + rows.sum(axis=0), squares + rows.T @ rows
        if progress is not None:
            progress(min(start + BATCH, len(texts)), len(texts), "fitting")
    if total < 16 * encoder.dim:
        problem = f"{total:,} tokens are too few to fit {encoder.dim} dimensions"
        raise InvalidInput("sample", problem, mend=f"store at least {16 * encoder.dim:,} tokens first")
    return Basis.fit(mean / total, squares / total, dims, f"fitted on {len(texts)} texts of the store, {encoder.id}")
