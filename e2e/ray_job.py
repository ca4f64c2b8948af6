"""A job with a module of its own, whose tasks run on every node. It prints Ray's own token, which the test must find nowhere else."""

import os
import time

import ray
from words import GREETING

ray.init()


@ray.remote(num_gpus=1, scheduling_strategy="SPREAD")
def where():
    time.sleep(2)
    return ray.get_runtime_context().get_node_id()


nodes = set(ray.get([where.remote() for _ in range(2)]))
print(GREETING)
print("nodes:", len(nodes))
with open(os.environ["RAY_AUTH_TOKEN_PATH"]) as file:
    print("ray-token:", file.read().strip())
