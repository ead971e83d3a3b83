"""MemBank's API: activations that are pointed to, compressed by HGNS, and recalled from coarse to fine.

``MemBank`` has the API of MemBank 0.1 (``from mambank import MemBank``). What differs, because that was wrong there:

- A compressed level is scored against the query's entries at the same indices, not against entries from elsewhere.
- What is recalled comes with its text, and the prompt of ``integrate`` shows it, quoted.
- Two texts with one activation are both found; a text that is there is not encoded again.
- Files are checked, durable and shared: a flipped bit is named, a crash loses nothing that was acknowledged, several
  processes may write. ``gc`` gives space back.
"""

from __future__ import annotations

from memspan.activations.hgns import (
    HGNSHierarchy,
    HierarchicalActivation,
    hgns_attribute_convergence,
    hgns_compress,
    hgns_compress_with_indices,
    hgns_gradient_1d,
    multilevel_gradient,
    saliency_mask,
)
from memspan.membank.adapters import MockAdapter, ModelAdapter
from memspan.membank.bank import MemBank
from memspan.membank.huggingface import HuggingFaceAdapter
from memspan.membank.index import SearchResult, VectorIndex
from memspan.membank.pointers import MemMapBuffer, PointerRecord, hash_activation, hash_text, make_pointer
from memspan.membank.query import QueryEngine, RecallResult
from memspan.membank.registry import Registry

__all__ = [
    "HGNSHierarchy",
    "HierarchicalActivation",
    "HuggingFaceAdapter",
    "MemBank",
    "MemMapBuffer",
    "MockAdapter",
    "ModelAdapter",
    "PointerRecord",
    "QueryEngine",
    "RecallResult",
    "Registry",
    "SearchResult",
    "VectorIndex",
    "hash_activation",
    "hash_text",
    "hgns_attribute_convergence",
    "hgns_compress",
    "hgns_compress_with_indices",
    "hgns_gradient_1d",
    "make_pointer",
    "multilevel_gradient",
    "saliency_mask",
]
