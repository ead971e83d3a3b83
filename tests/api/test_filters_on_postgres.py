"""A filter means on PostgreSQL what it means in a directory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgres import database
from test_filters import (
    test_a_category_holds_everything_below_it_and_nothing_beside_it,
    test_a_step_of_a_path_is_a_name_and_no_place_in_a_list,
    test_a_time_in_metadata_compares_as_the_iso_text_it_is_kept_as,
    test_every_value_against_every_operator_and_value,
    test_get_all_finds_exactly_what_the_model_finds,
    test_not_is_exactly_the_rest,
    test_numbers_of_both_kinds_are_asked_for_in_one_list,
    test_search_context_and_delete_all_see_the_same,
    test_times_compare_as_moments_however_they_are_written,
)

from memspan import Memory

__all__ = [
    "test_a_category_holds_everything_below_it_and_nothing_beside_it",
    "test_a_step_of_a_path_is_a_name_and_no_place_in_a_list",
    "test_a_time_in_metadata_compares_as_the_iso_text_it_is_kept_as",
    "test_every_value_against_every_operator_and_value",
    "test_get_all_finds_exactly_what_the_model_finds",
    "test_not_is_exactly_the_rest",
    "test_numbers_of_both_kinds_are_asked_for_in_one_list",
    "test_search_context_and_delete_all_see_the_same",
    "test_times_compare_as_moments_however_they_are_written",
]


@pytest.fixture(scope="module")
def shared(postgres_server: str) -> Iterator[Memory]:
    with database(postgres_server) as url, Memory(url, encoder=None) as memory:
        yield memory


@pytest.fixture
def memory(postgres_server: str) -> Iterator[Memory]:
    """Not in a database of the fixture that parses each statement: there are hundreds, all made in one way."""
    with database(postgres_server) as url, Memory(url, encoder="hash") as memory:
        yield memory
