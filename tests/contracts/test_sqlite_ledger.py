"""The embedded ledger keeps the contracts of ledgers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memspan.ledger.base import Ledger
from memspan.ledger.sqlite import SqliteLedger
from memspan.testing import ArchivingContract, LedgerContract


class TestSqliteLedger(LedgerContract, ArchivingContract):
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Iterator[Ledger]:
        ledger = SqliteLedger(tmp_path / "ledger.db")
        yield ledger
        ledger.close()

    @pytest.fixture
    def again(self, tmp_path: Path) -> Callable[[], Ledger]:
        return lambda: SqliteLedger(tmp_path / "ledger.db")
