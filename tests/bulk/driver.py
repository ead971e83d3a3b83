"""Takes a table in on a cluster, in a process of its own that is killed after so many blocks, or 0 for never; prints
what is done at last. Encoders die of the texts that are named after the table."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from bulk.encoders import Dying
from memspan.bulk import BulkMemory

if __name__ == "__main__":
    address, store, counts, blocks, table, *fatal = sys.argv[1:]
    with BulkMemory(store, encoder=Dying(Path(counts), *fatal)) as memory:
        for number, told in enumerate(memory.ingest([table], ray=address, batch=64)):  # noqa: B007
            if number == int(blocks) > 0:
                os.kill(os.getpid(), signal.SIGKILL)
    print(json.dumps(asdict(told)))
