"""A Ray cluster of two nodes that says its address and lives until its stdin is closed."""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster

cluster = Cluster()
for _ in range(2):
    cluster.add_node(num_cpus=1, object_store_memory=int(sys.argv[1]), include_dashboard=False)
print(f"cluster at {cluster.address}", flush=True)
sys.stdin.read()
cluster.shutdown()
