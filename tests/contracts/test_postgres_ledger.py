"""The ledger on PostgreSQL keeps the contracts of ledgers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from memspan.ledger.base import Ledger
from memspan.testing import ArchivingContract, LedgerContract


class TestPostgresLedger(LedgerContract, ArchivingContract):
    @pytest.fixture
    def again(self, postgres: str) -> Callable[[], Ledger]:
        from memspan.ledger.postgres.ledger import PostgresLedger

        return lambda: PostgresLedger(postgres)

    @pytest.fixture
    def ledger(self, again: Callable[[], Ledger]) -> Iterator[Ledger]:
        ledger = again()
        yield ledger
        ledger.close()
