"""The tour's job: tasks that each need a GPU, more than one node has, so that they must run on both."""

import json
import time

import ray

ray.init()


@ray.remote(num_gpus=1)
def where() -> str:
    # Long enough that all tasks are needed at once.
    time.sleep(1)
    return ray.util.get_node_ip_address()


gpus = int(ray.cluster_resources()["GPU"])
nodes = sorted(set(ray.get([where.remote() for _ in range(gpus)])))
print("muster-tour " + json.dumps({"gpus": gpus, "nodes": nodes}))
