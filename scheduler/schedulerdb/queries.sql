-- Offers and placement ------------------------------------------------------

-- name: HeadHosts :many
-- Operator hosts that can take a Ray head, least loaded first.
SELECT h.id, count(n.id)::int AS heads
FROM hosts h
LEFT JOIN nodes n ON n.host_id = h.id AND n.ended_at IS NULL
WHERE h.kind = 'head' AND h.state IN ('idle', 'leased') AND h.connected
GROUP BY h.id
ORDER BY heads, h.id;

-- name: UsedSlots :many
-- Those of live nodes, and of ended ones while their cluster lives: its Ray may list a failed node's address as alive for a
-- while, and the node in its place must not pass for it.
SELECT DISTINCT n.slot FROM nodes n JOIN clusters c ON c.id = n.cluster_id
WHERE n.ended_at IS NULL OR c.ended_at IS NULL
ORDER BY n.slot;

-- Quotes and bookings --------------------------------------------------------

-- name: ExpireQuotes :execrows
UPDATE bookings SET state = 'expired', decided_at = now()
WHERE state = 'quoted' AND requested_at IS NULL AND expires_at <= now();

-- name: WaitingBookings :many
-- Bookings for the applier to decide, oldest first.
SELECT * FROM bookings
WHERE state = 'quoted' AND requested_at IS NOT NULL
ORDER BY requested_at
LIMIT @batch
FOR UPDATE SKIP LOCKED;

-- name: AcceptBooking :exec
UPDATE bookings SET state = 'accepted', decided_at = now() WHERE id = @id;

-- name: RefuseBooking :exec
UPDATE bookings SET state = 'refused', decided_at = now(),
    refusal_code = @refusal_code, refusal = @refusal, refusal_details = sqlc.narg(refusal_details)
WHERE id = @id;

-- Writing a cluster -----------------------------------------------------------

-- name: AssertLeader :exec
SELECT assert_leader(@role, @term);

-- name: InsertCluster :exec
INSERT INTO clusters (id, org_id, booking_id, created_by, name, gpu_model, node_count, gpus_per_node, duration_ms,
    hold_base_units, fee_bps, ray_version, ray_token_sealed, places, forecast_end)
VALUES (@id, @org_id, @booking_id, @created_by, @name, @gpu_model, @node_count, @gpus_per_node, @duration_ms,
    @hold_base_units, @fee_bps, @ray_version, @ray_token_sealed, @places, now() + @expected::interval);

-- name: InsertNode :exec
INSERT INTO nodes (id, cluster_id, host_id, role, ordinal, slot, gpus, machine_id)
SELECT @id, @cluster_id, h.id, @role, @ordinal, @slot, @gpus, h.machine_id FROM hosts h WHERE h.id = @host_id;

-- name: LeaseGPUs :execrows
-- Leases for a node the first free GPUs of a host, in NVML's order, one under each of the ids.
INSERT INTO leases (id, cluster_id, node_id, host_id, gpu_id, customer_org_id, owner_org_id, price_per_gpu_hour, fee_bps)
SELECT (@ids::uuid[])[free.place], @cluster_id, @node_id, free.host_id, free.id, @customer_org_id, free.org_id, @price_per_gpu_hour, @fee_bps
FROM (
    SELECT g.id, g.host_id, h.org_id, row_number() OVER (ORDER BY g.ordinal) AS place
    FROM gpus g JOIN hosts h ON h.id = g.host_id
    WHERE g.host_id = @host_id AND g.model = @model AND g.healthy
      AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.gpu_id = g.id AND l.state <> 'closed')
) free
WHERE free.place <= cardinality(@ids::uuid[]);

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
