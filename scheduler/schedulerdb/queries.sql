-- Writing a cluster -----------------------------------------------------------

-- name: AssertLeader :exec
SELECT assert_leader(@role, @term);

-- name: MarkHostsLeased :exec
-- Hosts go between idle and leased as their leases do. Like every statement on several hosts it locks them in the order of ids.
WITH ordered AS (SELECT id FROM hosts WHERE id = ANY(@hosts::uuid[]) ORDER BY id FOR NO KEY UPDATE)
UPDATE hosts h SET state = CASE WHEN h.state = 'idle' THEN 'leased' ELSE 'idle' END
FROM ordered
WHERE h.id = ordered.id AND h.state IN ('idle', 'leased')
  AND (h.state = 'leased') <> EXISTS (SELECT 1 FROM nodes n WHERE n.host_id = h.id AND n.ended_at IS NULL);

-- name: BumpDesired :exec
-- Something that should run on these hosts has changed: their gateways are told when the transaction commits.
WITH ordered AS (
    SELECT id FROM hosts WHERE id = ANY(@hosts::uuid[]) ORDER BY id FOR NO KEY UPDATE
), bumped AS (
    UPDATE hosts h SET desired_generation = h.desired_generation + 1 FROM ordered WHERE h.id = ordered.id RETURNING h.id
)
SELECT pg_notify('muster_host', id::text) FROM bumped;

-- name: InsertEvent :exec
WITH event AS (
    INSERT INTO cluster_events (cluster_id, org_id, kind, state, node_id, message, fault_party)
    SELECT c.id, c.org_id, @kind, sqlc.narg(state), sqlc.narg(node_id), @message, sqlc.narg(fault_party)
    FROM clusters c WHERE c.id = @cluster_id
    RETURNING org_id
)
SELECT pg_notify('muster_cluster_events', org_id::text) FROM event;

-- Reading for the API ---------------------------------------------------------------

-- name: ListClusters :many
SELECT sqlc.embed(c), EXISTS (SELECT 1 FROM nodes n JOIN hosts h ON h.id = n.host_id WHERE n.cluster_id = c.id AND h.simulated) AS simulated
FROM clusters c
WHERE c.org_id = @org_id AND (@live::boolean IS FALSE OR c.ended_at IS NULL) AND (sqlc.narg(before)::uuid IS NULL OR c.id < sqlc.narg(before))
ORDER BY c.id DESC
LIMIT @page;

-- name: GetCluster :one
SELECT sqlc.embed(c), EXISTS (SELECT 1 FROM nodes n JOIN hosts h ON h.id = n.host_id WHERE n.cluster_id = c.id AND h.simulated) AS simulated
FROM clusters c WHERE c.id = @id AND c.org_id = @org_id;

-- name: NodePrices :many
SELECT node_id, max(price_per_gpu_hour)::bigint AS price FROM leases WHERE cluster_id = @cluster_id GROUP BY node_id;

-- name: LatestReceipt :one
SELECT made_at, document, sha256 FROM delivery_receipts WHERE cluster_id = @cluster_id ORDER BY made_at DESC LIMIT 1;

-- name: ClusterEvents :many
SELECT e.* FROM cluster_events e
WHERE e.cluster_id = @cluster_id AND e.org_id = @org_id AND e.seq > @after
ORDER BY e.seq LIMIT @page;

-- name: ClusterPhases :many
SELECT coalesce(state, '')::text AS state, at FROM cluster_events WHERE cluster_id = @cluster_id AND kind = 'state' ORDER BY seq;

-- name: OrgEvents :many
SELECT sqlc.embed(e), c.version FROM cluster_events e JOIN clusters c ON c.id = e.cluster_id
WHERE e.org_id = @org_id AND e.seq > @after
ORDER BY e.seq LIMIT @page;

-- name: LastOrgEvent :one
SELECT coalesce(max(seq), 0)::bigint FROM cluster_events WHERE org_id = @org_id;
