"""The functions of Latent Memory's scripts in "4. pkl": ``latent_memory.pkl``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memspan.latent import files
from memspan.latent.files import INDEX, Metadata, PathLike
from memspan.latent.steps import (
    convert_to_embeddings,
    create_faiss_index,
    format_for_inference,
    retrieve_relevant_conversations,
)

if TYPE_CHECKING:
    from faiss import IndexFlat

__all__ = [
    "convert_to_embeddings",
    "create_faiss_index",
    "format_for_inference",
    "load_data",
    "load_index",
    "retrieve_relevant_conversations",
    "save_data",
]


def save_data(embeddings: ArrayLike, metadata: Iterable[object], pickle_file: PathLike = "latent_memory.pkl") -> None:
    """As ``memspan.latent.save_data``, into one file."""
    files.save_data(embeddings, metadata, pickle_file)


def load_data(pickle_file: PathLike = "latent_memory.pkl") -> tuple[NDArray[np.float32], Metadata]:
    """As ``memspan.latent.load_data``."""
    return files.load_data(pickle_file)


def load_index(index_file: PathLike = INDEX, pickle_file: PathLike = "latent_memory.pkl") -> tuple[IndexFlat, Metadata]:
    """As ``memspan.latent.load_index``."""
    return files.load_index(index_file, pickle_file)
