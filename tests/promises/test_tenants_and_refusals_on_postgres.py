"""On PostgreSQL too nothing of another scope comes back, and a text that the encoder refuses is in nobody's way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from test_isolation import (
    test_a_filter_on_repeats_sees_a_repeat_at_the_next_search,
    test_an_id_of_another_namespace_names_nothing,
    test_the_same_words_in_two_scopes_are_two_memories,
    test_what_others_write_moves_no_score,
)
from test_refused import (
    test_a_query_the_encoder_refuses_is_answered_by_keywords,
    test_a_refused_text_does_not_block_those_behind_it,
)

from memspan import Memory

__all__ = [
    "test_a_filter_on_repeats_sees_a_repeat_at_the_next_search",
    "test_a_query_the_encoder_refuses_is_answered_by_keywords",
    "test_a_refused_text_does_not_block_those_behind_it",
    "test_an_id_of_another_namespace_names_nothing",
    "test_the_same_words_in_two_scopes_are_two_memories",
    "test_what_others_write_moves_no_score",
]


@pytest.fixture
def memory(postgres: str) -> Iterator[Memory]:
    with Memory(postgres, encoder="hash") as memory:
        yield memory


@pytest.fixture
def store(postgres: str) -> str:
    return postgres
