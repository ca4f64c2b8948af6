# Tells the head at ADDRESS to drain the node at IP within SECONDS: no new work comes to it, and Ray moves what it can. Stock
# `ray drain-node` does the same for who knows the node's id in Ray; the head knows it.
import sys

from ray._raylet import GcsClient
from ray.core.generated.gcs_pb2 import GcsNodeInfo
from ray.scripts.scripts import main

address, ip, seconds = sys.argv[1:]
nodes = GcsClient(address=address).get_all_node_info().values()
node = next((n for n in nodes if n.node_manager_address == ip and n.state == GcsNodeInfo.ALIVE), None)
if node is None:
    sys.exit(f"the head knows no living node at {ip}")
sys.argv = [
    "ray", "drain-node", "--address", address, "--node-id", node.node_id.hex(),
    "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the node leaves the cluster",
    "--deadline-remaining-seconds", seconds,
]
sys.exit(main())
