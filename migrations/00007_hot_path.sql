-- +goose Up

-- Every booking writes its nodes and leases in one transaction, which has just written their cluster, joins the GPUs that it
-- leases, and locks every host that it names; clusters, nodes, GPUs and hosts with nodes are never deleted. Checking these references
-- again for every row locked, and so rewrote, the row that it refers to: a fifth of what a booking cost.
ALTER TABLE nodes DROP CONSTRAINT nodes_cluster_id_fkey, DROP CONSTRAINT nodes_host_id_fkey;
ALTER TABLE leases DROP CONSTRAINT leases_node_id_fkey, DROP CONSTRAINT leases_gpu_id_fkey;
DROP INDEX nodes_by_cluster; -- nodes_slots_by_cluster begins with the same column

-- +goose Down
CREATE INDEX nodes_by_cluster ON nodes (cluster_id);
ALTER TABLE leases ADD CONSTRAINT leases_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes,
    ADD CONSTRAINT leases_gpu_id_fkey FOREIGN KEY (gpu_id) REFERENCES gpus;
ALTER TABLE nodes ADD CONSTRAINT nodes_cluster_id_fkey FOREIGN KEY (cluster_id) REFERENCES clusters,
    ADD CONSTRAINT nodes_host_id_fkey FOREIGN KEY (host_id) REFERENCES hosts;
