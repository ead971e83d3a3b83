"""The functions of Latent Memory's scripts in "2. npy and json": ``embeddings.npy`` and ``metadata.json``."""

from __future__ import annotations

from memspan.latent.files import load_data, load_index, save_data
from memspan.latent.steps import (
    convert_to_embeddings,
    create_faiss_index,
    format_for_inference,
    retrieve_relevant_conversations,
)

__all__ = [
    "convert_to_embeddings",
    "create_faiss_index",
    "format_for_inference",
    "load_data",
    "load_index",
    "retrieve_relevant_conversations",
    "save_data",
]
