"""A Ray cluster of two nodes on this machine: a head that takes no workers, and nodes that do.

Each node is a raylet of its own that claims four CPUs and a GPU, and may be killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

NODE = {"num_cpus": 4, "num_gpus": 1, "object_store_memory": 80 * 2**20}


@dataclass
class RayNodes:
    """`files`: where Ray keeps its logs and its records."""

    cluster: Any
    files: Path
    nodes: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self) -> None:
        self.nodes.append(self.cluster.add_node(**NODE))

    def name(self, node: int) -> str:
        """As `WorkerPlaced` has it."""
        return str(self.nodes[node].node_id)[:8]

    def kill(self, node: int) -> None:
        """As if its machine were gone."""
        self.cluster.remove_node(self.nodes.pop(node), allow_graceful=False)


@contextlib.contextmanager
def ray_nodes(count: int = 2) -> Iterator[RayNodes]:
    """Running, with files of its own that are gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="ray-"))  # short: sockets lie in it
    files = root / "ray"
    files.mkdir()
    of_nodes = {
        # The head notes its address in `ray` in here, a folder that has to be there: by default it
        # is one that all clusters of the machine share, and that none has made on a fresh one.
        "RAY_TMPDIR": str(root),
        # Workers find what a test finds, and are not the last to be given a core beside others.
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    with contextlib.ExitStack() as left, mock.patch.dict(os.environ, of_nodes):
        left.callback(shutil.rmtree, root, ignore_errors=True)
        from ray.cluster_utils import Cluster

        cluster = Cluster()
        left.callback(cluster.shutdown)
        cluster.add_node(num_cpus=0, include_dashboard=False, temp_dir=str(files))
        started = RayNodes(cluster, files)
        for _ in range(count):
            started.add()
        yield started
