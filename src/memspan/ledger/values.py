"""What a store keeps of itself, by key, as transactions read and write it."""

from __future__ import annotations

from memspan.errors import EncoderMismatch
from memspan.ledger.transactions import Connection

ENCODING = "(SELECT CAST(value AS INTEGER) FROM store WHERE key = 'encoding')"  # the one in use


def put_value(connection: Connection, key: str, value: str) -> None:
    """Keep a value, whatever it was before."""
    sql = "INSERT INTO store VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    connection.execute(sql, (key, value))


def agreed(connection: Connection, encoder: str | None) -> None:
    """Raises EncoderMismatch unless the store still records this ``encoder``; None is any. A transaction that writes to
    a namespace asks once it may write there: who changes the encoder has all others wait."""
    if encoder is not None:
        row = connection.execute("SELECT value FROM store WHERE key = 'encoder'").fetchone()
        if row is None or row[0] != encoder:
            mend = "nothing was written; open the store again and repeat it"
            raise EncoderMismatch("the store was given another encoder meanwhile", mend=mend)
