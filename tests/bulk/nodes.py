"""A Ray cluster of two nodes that says its address, and loses the second one or gets another when it is told so."""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster

about = {"num_cpus": 1, "object_store_memory": int(sys.argv[1]), "include_dashboard": False}
cluster = Cluster()
cluster.add_node(**about)
second = cluster.add_node(**about)
print(f"cluster at {cluster.address}", flush=True)
for line in sys.stdin:
    if line == "lose\n":
        cluster.remove_node(second, allow_graceful=False)
    else:
        second = cluster.add_node(**about)
    print("done", flush=True)
cluster.shutdown()
