"""LangChain's own standard suites, and what they do not ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("langchain_core", reason="needs langchain-core")
pytest.importorskip("langchain_tests", reason="needs langchain-tests")

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from memspan import Memory
from memspan.errors import EncoderError, InvalidInput
from memspan.integrations.langchain import EmbeddingsEncoder, MemspanRetriever, MemspanVectorStore
from memspan.testing import EncoderContract


class TestVectorStoreWithEmbeddings(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:
        with Memory(tmp_path / "store", encoder=EmbeddingsEncoder(self.get_embeddings())) as memory:
            yield MemspanVectorStore(memory)


class TestVectorStoreWithOwnEncoder(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, memory: Memory) -> VectorStore:
        return MemspanVectorStore(memory)


class TestRetriever(RetrieversIntegrationTests):
    memory: Memory

    @pytest.fixture(autouse=True)
    def stored(self, memory: Memory) -> None:
        for text in ("Ana lives in Lisbon.", "Ben lives in Rome.", "Cy lives in Oslo.", "Dee lives in Paris."):
            memory.add(text)
        self.memory = memory

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return MemspanRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"memory": self.memory}

    @property
    def retriever_query_example(self) -> str:
        return "Who lives in Rome?"


class WordVectors(Embeddings):
    """The sum of a vector for each word."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        words = DeterministicFakeEmbedding(size=64)
        return [np.sum([words.embed_query(word) for word in text.lower().split()[:256] or [""]], 0) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


class TestEmbeddingsEncoder(EncoderContract):
    @pytest.fixture
    def encoder(self) -> EmbeddingsEncoder:
        return EmbeddingsEncoder(WordVectors())


def test_a_document_keeps_its_id_its_metadata_and_every_character(memory: Memory) -> None:
    store = MemspanVectorStore(memory)
    long = "  \n".join(f"Line {n} of a long report about the harbour.  " for n in range(400)) + "\n\n"
    documents = [
        Document(page_content=long, metadata={"topic": "sea", "pages": [1, 2], "notes": "x" * 5_000}, id="report"),
        Document(page_content="", metadata={"topic": "nothing"}, id="blank"),
    ]
    store.add_documents(documents)
    assert store.get_by_ids(["report", "blank", "missing"]) == documents
    assert store.similarity_search("line 399 of the report", k=3, filter={"topic": "sea"}) == [documents[0]]
    assert store.similarity_search("nothing blank", k=3) == [documents[0]]


def test_a_document_that_is_written_again_with_other_metadata_is_found_by_them_alone(memory: Memory) -> None:
    store = MemspanVectorStore(memory)
    store.add_texts(["The boat is blue."], [{"seen": 1}], ids=["boat"])
    store.add_texts(["The boat is blue."], [{"seen": 2}], ids=["boat"])
    assert store.similarity_search("boat", filter={"seen": 1}) == []
    assert [found.metadata for found in store.similarity_search("boat", filter={"seen": 2})] == [{"seen": 2}]


def test_equal_texts_under_two_ids_are_two_documents(memory: Memory) -> None:
    store = MemspanVectorStore(memory)
    store.add_texts(["The same."] * 2, ids=["a", "b"])
    assert {found.id for found in store.similarity_search("the same")} == {"a", "b"}
    store.delete(["a"])
    assert [found.id for found in store.similarity_search("the same")] == ["b"]
    store.delete()
    assert store.similarity_search("the same") == []


def test_the_most_relevant_and_least_alike_are_chosen(memory: Memory) -> None:
    store = MemspanVectorStore(memory)
    store.add_texts(
        ["the boat in the harbour is blue", "the boat in the harbour is blue!", "a boat of Ben in Oslo"],
        ids=["blue", "again", "other"],
    )
    found = store.max_marginal_relevance_search("boat in the harbour", k=2, lambda_mult=0.3)
    assert {"other"} < {document.id for document in found}
    assert len(store.as_retriever(search_type="mmr", search_kwargs={"k": 2}).invoke("boat")) == 2


def test_scores_are_relevances_and_a_threshold_holds(memory: Memory) -> None:
    store = MemspanVectorStore(memory)
    store.add_texts(["Ana lives in Lisbon.", "Nothing like it at all."])
    ((_, best), (_, worst)) = store.similarity_search_with_relevance_scores("Where does Ana live?", k=2)
    assert 1 >= best > worst >= 0
    options = {"score_threshold": (best + worst) / 2}
    assert len(store.as_retriever(search_type="similarity_score_threshold", search_kwargs=options).invoke("Ana")) <= 1


def test_ids_that_are_not_as_many_as_the_texts_are_refused(memory: Memory) -> None:
    with pytest.raises(InvalidInput, match="ids"):
        MemspanVectorStore(memory).add_texts(["one", "two"], ids=["1"])
    assert memory.get_all() == []


def test_texts_can_be_stored_with_embeddings_in_one_call(tmp_path: Path) -> None:
    store = MemspanVectorStore.from_texts(["a red fox", "a blue fish"], WordVectors(), path=str(tmp_path / "store"))
    assert store.similarity_search("red", k=1)[0].page_content == "a red fox"
    store._memory.close()


def test_the_retriever_tells_who_said_it_and_when_and_keeps_to_its_user(memory: Memory) -> None:
    memory.add([{"role": "user", "name": "Ana", "content": "I moved to Lisbon.", "time": "2026-05-01"}], user_id="ana")
    memory.add("Ben moved to Rome.", user_id="ben", metadata={"speaker": "nobody"})
    retriever = MemspanRetriever(memory=memory, user_id="ana")
    (found,) = asyncio.run(retriever.ainvoke("who moved?"))
    assert (found.page_content, found.metadata["speaker"]) == ("I moved to Lisbon.", "Ana")
    assert found.metadata["time"].startswith("2026-05-01")
    assert memory.get(found.id or "").text == found.page_content
    (other,) = retriever.invoke("who moved?", user_id="ben")
    assert other.metadata["speaker"] == "nobody"


def test_embeddings_that_fail_or_are_no_numbers_are_told() -> None:
    class Broken(WordVectors):
        broken = False

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            if self.broken:
                raise RuntimeError("out of order")
            return [[float("nan")] * 4 if text == "bad" else [1.0] * 4 for text in texts]

    model = Broken()
    encoder = EmbeddingsEncoder(model)
    with pytest.raises(EncoderError, match="finite"):
        encoder.encode(["bad"])
    model.broken = True
    with pytest.raises(EncoderError, match="out of order"):
        encoder.encode(["good"])
