"""The functions of Latent Memory's scripts in "1. csv and json": ``embeddings.csv`` and ``metadata.json``."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memspan.latent import files
from memspan.latent.files import METADATA, Metadata, PathLike, load_index
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


def save_data(
    embeddings: ArrayLike,
    metadata: Iterable[object],
    embeddings_file: PathLike = "embeddings.csv",
    metadata_file: PathLike = METADATA,
) -> None:
    """As ``memspan.latent.save_data``."""
    files.save_data(embeddings, metadata, embeddings_file, metadata_file)


def load_data(
    embeddings_file: PathLike = "embeddings.csv", metadata_file: PathLike = METADATA
) -> tuple[NDArray[np.float32], Metadata]:
    """As ``memspan.latent.load_data``."""
    return files.load_data(embeddings_file, metadata_file)
