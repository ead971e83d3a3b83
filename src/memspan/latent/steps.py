"""The three steps: conversations to embeddings, embeddings to an index, a question to a context."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memspan import arguments, encoders
from memspan.archives import faiss
from memspan.archives.base import aside
from memspan.config import Config
from memspan.encoders.base import Encoder
from memspan.errors import EncoderMismatch, InvalidInput
from memspan.latent.files import INDEX, Metadata, PathLike, checked, index_of
from memspan.segmenting import check_text, cut, shown

if TYPE_CHECKING:
    from faiss import IndexFlat

AUTO = "auto"
BATCH = 256  # texts encoded at once


def convert_to_embeddings(
    conversations: Iterable[str | Mapping[str, Any]], *, encoder: str | Encoder = AUTO
) -> tuple[NDArray[np.float32], Metadata]:
    """Embeddings float32[n, dim], each of length 1, and n dicts with conversation_id, summary and timestamp.

    A conversation is a text, or a dict with ``summary`` and whatever else is known of it, which is kept. What is not
    said is ``conv_0``, ``conv_1``, ... and the time now, in UTC. A text longer than what the ``encoder`` reads at once
    is cut, and has the mean of its parts. Raises InvalidInput, EncoderError.
    """
    if isinstance(conversations, (str, Mapping)):
        raise InvalidInput("conversations", "is one conversation", mend="give a list of them")
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    metadata = []
    for at, given in enumerate(conversations):
        said = {"summary": given} if isinstance(given, str) else given
        if not isinstance(said, Mapping):
            problem = f"is a {type(given).__name__}"
            raise InvalidInput(f"conversations[{at}]", problem, mend="give a text, or a dict with a summary")
        check_text(said.get("summary"), f"conversations[{at}]")
        metadata.append({"conversation_id": f"conv_{at}", "summary": "", "timestamp": now, **said})
    made = _made(encoder)
    starts = range(0, len(metadata), BATCH)
    parts = [_embedded([row["summary"] for row in metadata[at : at + BATCH]], made) for at in starts]
    return np.concatenate(parts) if parts else np.zeros((0, made.dim), np.float32), metadata


def create_faiss_index(embeddings: ArrayLike, index_file: PathLike = INDEX) -> IndexFlat:
    """An index by inner product over embeddings float32[n, dim], which is also written to ``index_file``.

    Raises InvalidInput, NotWritable.
    """
    matrix, path = checked(embeddings), arguments.path(index_file)
    with aside(path) as part, part.open("wb") as file:
        faiss.put(file, matrix.shape[1], matrix)
    return index_of(matrix)


def retrieve_relevant_conversations(
    query: str,
    index: IndexFlat,
    metadata: Sequence[Any],
    k: int = 2,
    *,
    encoder: str | Encoder = AUTO,
) -> list[Any]:
    """The rows of metadata of the ``k`` conversations nearest to ``query``, nearest first; fewer where there are fewer.

    ``encoder`` must be the one the index was made with. Raises InvalidInput, EncoderMismatch where its vectors have
    another length, EncoderError.
    """
    wanted, made = arguments.count("k", k), _made(encoder)
    if index.ntotal != len(metadata):
        problem = f"has {len(metadata):,} rows for the {index.ntotal:,} vectors of the index"
        raise InvalidInput("metadata", problem, mend="give those the index was made with")
    if index.d != made.dim:
        problem = f"the index has vectors of {index.d:,} numbers, and encoder {made.id!r} makes {made.dim:,}"
        raise EncoderMismatch(problem, mend="pass the encoder= that the index was made with, or make it again")
    if not len(metadata):
        return []
    _, found = index.search(_embedded([check_text(query, "query")], made), min(wanted, index.ntotal))
    return [metadata[at] for at in found[0] if at >= 0]


def format_for_inference(relevant_conversations: Iterable[Mapping[str, Any]]) -> str:
    """The conversations as a context for a model, a line for each.

    As the scripts write it, word for word: what was said stands there unquoted. ``memspan.Memory.context`` quotes and
    cites, and counts tokens. Raises InvalidInput.
    """
    context = "Relevant past conversations:\n"
    for at, row in enumerate(relevant_conversations):
        try:
            context += f"- {row['summary']} (Timestamp: {row['timestamp']})\n"
        except (KeyError, TypeError, IndexError) as error:
            mend = "each is a dict with summary and timestamp"
            raise InvalidInput(f"relevant_conversations[{at}]", f"is {shown(row)}", mend=mend) from error
    return context


def _embedded(texts: Sequence[str], encoder: Encoder) -> NDArray[np.float32]:
    """float32[n, dim]: of each text the vector, or the mean of those of its parts, of length 1."""
    window = max(encoder.window - 2, 8)  # with the marks of begin and end
    pieces = [cut(text, tokenizer=encoder.tokenizer, window=window) for text in texts]
    rows = encoder.encode([piece.text for several in pieces for piece in several]).pooled
    sums = np.add.reduceat(rows, np.cumsum([0, *(len(several) for several in pieces[:-1])]), axis=0)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    made: NDArray[np.float32] = (sums / np.maximum(lengths, 1e-12)).astype(np.float32)
    return made


@lru_cache(maxsize=2)
def _named(spec: str) -> Encoder | None:
    return encoders.make("minilm" if spec == AUTO else spec)


def _made(encoder: str | Encoder) -> Encoder:
    if not isinstance(encoder, str):
        made = encoders.make(encoder)
    else:
        made = _named(Config.load().encoder if encoder == AUTO else encoder)
    if made is None:
        raise InvalidInput("encoder", f"is {shown(encoder)}", mend="embeddings need one: pass encoder='minilm'")
    return made
