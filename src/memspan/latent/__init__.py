"""Latent Memory's own way (ronniross/latent-memory), with real embeddings where its scripts have placeholders.

    from memspan.latent import convert_to_embeddings, create_faiss_index, load_data, save_data

    embeddings, metadata = convert_to_embeddings(conversations)     # float32[n, dim], a dict for each
    save_data(embeddings, metadata, "embeddings.npy")               # or .csv, .h5, .pkl: the suffix says which
    index = create_faiss_index(embeddings)                          # faiss_index.bin
    found = retrieve_relevant_conversations("what about RL?", index, metadata, k=2)
    print(format_for_inference(found))

The modules ``csv``, ``npy``, ``hdf5`` and ``pkl`` have the functions of the four folders of scripts, with the arguments
and files that they have there: a script runs when these functions are imported instead of defined. In its third step
``load_data`` reads an index, which is ``load_index`` here: ``from memspan.latent.csv import load_index as load_data``.

Files the scripts wrote are read here, and the other way round. What differs, because that was wrong there: metadata is
a list of dicts in all four; HDF5 keeps texts of any length, and other characters than ASCII; a pickle is read as data
and runs nothing; an index that says more than it holds is refused; when there are fewer than ``k`` conversations, the
last one is not given for those that are missing; files are written whole or not at all.
"""

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
