"""``MemspanRetriever`` and ``MemspanVectorStore``: LangChain's retriever and vector store over a ``Memory``.

    from memspan import Memory
    from memspan.integrations.langchain import MemspanRetriever, MemspanVectorStore

    memory = Memory("my-memory")
    retriever = MemspanRetriever(memory=memory, k=5, user_id="ana")         # whatever the memory holds of Ana
    store = MemspanVectorStore(memory)                                      # documents under ids of LangChain's
    store.add_documents([Document(page_content="...", metadata={"topic": "travel"}, id="trip")])
    store.similarity_search("where to?", k=4, filter={"topic": "travel"})

A document of the vector store is an ``Entry`` under its id: written again it is replaced, and what it said stays in the
history; one that is longer than the encoder reads is found by its best part and returned whole. Searches are those of
the memory, by words, meaning and graph; the vectors come from its encoder. To have them come from a model of
LangChain's, open the memory with ``EmbeddingsEncoder(embeddings)``; ``MemspanVectorStore.from_texts`` does.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from memspan.encoders.base import Encoded
from memspan.errors import EncoderError, InvalidInput, MissingExtra
from memspan.integrations.entries import MARK, Entries, Entry
from memspan.memory import Memory
from memspan.records import Hit
from memspan.segmenting import WordTokenizer

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.vectorstores import VectorStore
    from pydantic import ConfigDict, Field
except ImportError as error:
    raise MissingExtra("MemspanRetriever needs langchain-core", mend='pip install "memspan[langchain]"') from error

TOLD = ("score", "time", "speaker", "session", "document_id")  # of a hit, in the metadata of its document
SCOPE = ("namespace", "user_id", "agent_id", "run_id", "session")


class MemspanRetriever(BaseRetriever):
    """The ``k`` segments that answer a query best, as documents with their id and metadata.

    The metadata has ``score`` in [0, 1] and ``time``, and where they are known ``speaker``, ``session`` and
    ``document_id``; a name that the segment's own metadata has too is the segment's. The other fields are arguments of
    ``Memory.search``; ``invoke(query, k=..., ...)`` takes them for one call. Raises what ``search`` raises.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    memory: Memory = Field(exclude=True)
    k: int = 4
    namespace: str | None = None
    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None
    session: str | None = None
    filters: dict[str, Any] | None = None
    threshold: float = 0.0
    recipe: str = "default"

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        given = {name: getattr(self, name) for name in (*SCOPE, "k", "filters", "threshold", "recipe")}
        return [_of_hit(hit) for hit in self.memory.search(query, **{**given, **options})]


class MemspanVectorStore(VectorStore):
    """Documents under ids, kept in a ``Memory`` as those of ``user_id``.

    ``filter`` of a search is as the ``filters`` of ``Memory.search``, a score is in [0, 1], and higher is better.
    Metadata must be JSON. ``recipe`` is that of ``Memory.search``.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        namespace: str | None = None,
        user_id: str = "langchain",
        recipe: str = "default",
    ) -> None:
        self._memory = memory
        self._namespace = namespace
        self._user = user_id
        self._entries = Entries(memory, "langchain", user_id=user_id, namespace=namespace)
        self._recipe = recipe

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        memory: Memory | None = None,
        path: str = ":memory:",
        **options: Any,
    ) -> Self:
        """A store with these texts, over ``memory``, or over one opened on ``path`` with the vectors of ``embedding``
        (None: those of the memory's own default). ``options``: those of the constructor."""
        if memory is None:
            memory = Memory(path) if embedding is None else Memory(path, encoder=EmbeddingsEncoder(embedding))
        store = cls(memory, **options)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Keep texts, each in the place of what is under its id, a new one where it has none; returns the ids.

        Each is durable before the next. Raises InvalidInput.
        """
        several = list(texts)
        for name, given in (("metadatas", metadatas), ("ids", ids)):
            if given is not None and len(given) != len(several):
                raise InvalidInput(name, f"are {len(given)} for {len(several)} texts", mend="give one for each text")
        named = [id or str(uuid.uuid4()) for id in ids or [None] * len(several)]
        for id, text, metadata in zip(named, several, metadatas or [{}] * len(several), strict=True):
            self._entries.write((id,), text, metadata or {})
        return named

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents with these ids, in their order; one that is not there is left out."""
        found = [self._entries.read((id,)) for id in ids]
        return [_of_entry(entry) for entry in found if entry is not None]

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete documents, or all of the store where no ids are given; they stay in the history."""
        found = self._entries.all() if ids is None else [self._entries.read((id,)) for id in ids]
        self._entries.remove([entry for entry in found if entry is not None])
        return True

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The ``k`` documents that answer ``query`` best, best first."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The same with their scores in [0, 1]."""
        return [(_of_entry(entry), score) for entry, score in self._found(query, k, filter)]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """``k`` of the ``fetch_k`` best documents, each chosen for its score and for how little it is like those before
        it, ``lambda_mult`` of 1 for the score alone (Carbonell and Goldstein 1998). Needs vectors in the memory."""
        found = self._found(query, fetch_k, filter)
        rows, vectors = self._memory.embeddings(
            namespace=self._namespace,
            user_id=self._user,
            filters={"id": {"in": [entry.ids[0] for entry, _ in found]}},
        )
        at = {row.id: vector for row, vector in zip(rows, vectors, strict=True)}
        unknown = np.zeros(vectors.shape[1], np.float32)
        of = np.array([at.get(entry.ids[0], unknown) for entry, _ in found], np.float32).reshape(len(found), -1)
        like, scores = of @ of.T, np.array([score for _, score in found])
        chosen: list[int] = []
        while len(chosen) < min(k, len(found)):
            repeats = like[:, chosen].max(axis=1, initial=0.0)
            worth = lambda_mult * scores - (1 - lambda_mult) * repeats
            worth[chosen] = -np.inf
            chosen.append(int(worth.argmax()))
        return [_of_entry(found[index][0]) for index in chosen]

    def _select_relevance_score_fn(self) -> Any:
        return float

    def _found(self, query: str, k: int, filter: Mapping[str, Any] | None) -> list[tuple[Entry, float]]:
        return self._entries.search(query, k, filter, recipe=self._recipe)


class EmbeddingsEncoder:
    """LangChain's ``Embeddings`` as the encoder of a memory: ``Memory(path, encoder=EmbeddingsEncoder(embeddings))``.

    ``id`` names the model, so that a store knows which one its vectors are from: by default the class and its ``model``
    or ``model_name``. ``window``: words of a text that the model reads. Texts and questions are both embedded as
    documents. Raises EncoderError where the model fails or its vectors are no finite numbers.
    """

    def __init__(self, embeddings: Embeddings, *, id: str | None = None, window: int = 256) -> None:
        model = next((name for key in ("model", "model_name") if (name := getattr(embeddings, key, None))), "")
        self.id = id or f"langchain:{type(embeddings).__name__}:{model}"
        self.window = window
        self.tokenizer = WordTokenizer()
        self._embeddings = embeddings
        self.dim = len(self._vectors(["memory"])[0])

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Encoded with ``pooled`` float32[n, dim], rows of length 1, or 0 where the model gives zeros."""
        if not texts:
            return Encoded(np.zeros((0, self.dim), np.float32))
        try:
            written = [
                text.encode("utf-8", "replace").decode() for text in texts
            ]  # half of a surrogate pair is no text
            rows = np.array(self._vectors(written), np.float64).reshape(len(texts), self.dim)
        except ValueError as error:
            raise EncoderError(f"{self.id} gave vectors of another shape", mend="check the model") from error
        if not np.isfinite(rows).all():
            raise EncoderError(f"{self.id} gave vectors that are not finite", mend="check the model")
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return Encoded((rows / np.where(norms > 0, norms, 1)).astype(np.float32))

    def _vectors(self, texts: list[str]) -> list[list[float]]:
        try:
            return self._embeddings.embed_documents(texts)
        except Exception as error:
            raise EncoderError(f"{self.id} failed: {error}", mend="the text is stored, and encoded later") from error


def _of_hit(hit: Hit) -> Document:
    told = {name: getattr(hit, name) for name in TOLD}
    told["time"] = hit.time.isoformat()
    own = {name: value for name, value in hit.metadata.items() if name != MARK}
    return Document(
        id=hit.id, page_content=hit.text, metadata={**{k: v for k, v in told.items() if v is not None}, **own}
    )


def _of_entry(entry: Entry) -> Document:
    return Document(id=entry.key[0], page_content=entry.text, metadata=dict(entry.metadata))
