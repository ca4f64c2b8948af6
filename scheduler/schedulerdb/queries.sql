-- Offers and placement ------------------------------------------------------

-- name: PlacementHosts :many
-- Every GPU host with an ask, or those of a list, with how many of its healthy GPUs no open lease holds. "Open for business" is
-- decided by the caller from state and active, so that an explanation can tell the two apart.
SELECT h.id, h.org_id, h.state, h.connected, h.region, h.site, h.simulated, a.active, a.price_per_gpu_hour,
       g.model, g.memory_mib,
       count(*)::int AS gpus,
       count(*) FILTER (WHERE g.healthy AND l.id IS NULL)::int AS free_gpus
FROM hosts h
JOIN asks a ON a.host_id = h.id
JOIN gpus g ON g.host_id = h.id
LEFT JOIN leases l ON l.gpu_id = g.id AND l.state <> 'closed'
WHERE h.kind = 'gpu' AND h.state <> 'retired' AND (sqlc.narg(hosts)::uuid[] IS NULL OR h.id = ANY(sqlc.narg(hosts)::uuid[]))
GROUP BY h.id, a.id, g.model, g.memory_mib;

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

-- name: InsertQuote :one
INSERT INTO bookings (id, org_id, created_by, gpu_model, node_count, gpus_per_node, regions, duration_ms,
    max_price_per_gpu_hour, fee_bps, plan, hold_base_units, expires_at, cluster_name)
VALUES (@id, @org_id, @created_by, @gpu_model, @node_count, @gpus_per_node, @regions, @duration_ms,
    sqlc.narg(max_price_per_gpu_hour), @fee_bps, @plan, @hold_base_units, now() + @lifetime::interval, @cluster_name)
RETURNING quoted_at, expires_at;

-- name: GetBooking :one
SELECT b.*, c.id AS cluster_id, clock_timestamp()::timestamptz AS read_at
FROM bookings b LEFT JOIN clusters c ON c.booking_id = b.id
WHERE b.id = @id AND b.org_id = @org_id;

-- name: RequestBooking :exec
-- Accepts a quote that is still open, and wakes the applier; asking twice changes nothing.
WITH requested AS (
    UPDATE bookings SET requested_at = coalesce(requested_at, now()),
        cluster_name = CASE WHEN requested_at IS NULL AND @cluster_name::text <> '' THEN @cluster_name ELSE cluster_name END
    WHERE id = @id AND org_id = @org_id AND state = 'quoted' AND (requested_at IS NOT NULL OR expires_at > now())
    RETURNING id
)
SELECT pg_notify('muster_bookings', '') FROM requested;

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

-- name: UpsertAsk :execrows
-- An owner's price; the host must be the owner's.
INSERT INTO asks (id, org_id, host_id, price_per_gpu_hour, active)
SELECT @id, h.org_id, h.id, @price_per_gpu_hour, @active
FROM hosts h WHERE h.id = @host_id AND h.org_id = @org_id AND h.kind = 'gpu' AND h.state <> 'retired'
ON CONFLICT (host_id) DO UPDATE
SET price_per_gpu_hour = excluded.price_per_gpu_hour, active = excluded.active, updated_at = now();

-- name: AsksOf :many
SELECT * FROM asks WHERE org_id = @org_id;

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

-- A cluster's life -------------------------------------------------------------

-- name: LiveClusters :many
SELECT id FROM clusters WHERE state NOT IN ('released', 'failed') ORDER BY id;

-- name: ReadCluster :one
-- What the lifecycle decides on, the database's time included.
SELECT c.*, b.regions, clock_timestamp()::timestamptz AS now
FROM clusters c JOIN bookings b ON b.id = c.booking_id
WHERE c.id = @id;

-- name: LockCluster :one
-- The same, with the cluster's row locked until the transaction ends, but not against rows that refer to it.
SELECT c.*, b.regions, clock_timestamp()::timestamptz AS now
FROM clusters c JOIN bookings b ON b.id = c.booking_id
WHERE c.id = @id
FOR NO KEY UPDATE OF c;

-- name: LockNodes :exec
-- In the order in which the gateway locks them.
SELECT FROM nodes WHERE cluster_id = @cluster_id AND ended_at IS NULL ORDER BY id FOR NO KEY UPDATE;

-- name: ClusterNodes :many
-- A host is gone once nobody has heard of it for as long as a restart takes, which is for the gateway to judge, or when it may
-- no longer work here. One that is merely silent for a moment, or is being verified again after it came back, is not.
SELECT n.*, h.state AS host_state, h.state IN ('lost', 'quarantined', 'retired') AS host_gone, h.org_id AS host_org_id, h.region, h.simulated,
       NOT EXISTS (SELECT 1 FROM leases l JOIN gpus g ON g.id = l.gpu_id
                   WHERE l.node_id = n.id AND l.state <> 'closed' AND NOT g.healthy) AS gpus_well
FROM nodes n JOIN hosts h ON h.id = n.host_id
WHERE n.cluster_id = @cluster_id
ORDER BY n.role DESC, n.ordinal, n.id;

-- name: GetRaySummary :one
SELECT observed_at, nodes FROM ray_summaries WHERE cluster_id = @cluster_id;

-- name: BilledMilliseconds :one
-- Cluster time billed so far: all leases of a cluster start and stop together, so each start is one period. Confirmed time
-- includes the open period, ended time does not. Rounded up, so that what is left never exceeds what was booked.
SELECT ceil(coalesce(sum(confirmed_ms), 0))::bigint AS confirmed_ms, ceil(coalesce(sum(ended_ms), 0))::bigint AS ended_ms FROM (
    SELECT max(extract(epoch FROM u.confirmed_at - u.started_at) * 1000) AS confirmed_ms,
           max(extract(epoch FROM u.ended_at - u.started_at) * 1000) AS ended_ms
    FROM usage u JOIN leases l ON l.id = u.lease_id
    WHERE l.cluster_id = @cluster_id
    GROUP BY u.started_at
) periods;

-- name: SetClusterState :exec
UPDATE clusters SET state = @state, version = version + 1, phase_at = clock_timestamp(),
    ready_at = CASE WHEN @state = 'ready' THEN coalesce(ready_at, clock_timestamp()) ELSE ready_at END,
    ended_at = CASE WHEN @state IN ('released', 'failed') THEN clock_timestamp() END,
    fault_party = coalesce(fault_party, sqlc.narg(fault_party)),
    end_reason = CASE WHEN end_reason = '' THEN @end_reason ELSE end_reason END
WHERE id = @id;

-- name: TouchCluster :exec
UPDATE clusters SET version = version + 1 WHERE id = @id;

-- name: CountReplacement :exec
UPDATE clusters SET replacements = replacements + 1, version = version + 1 WHERE id = @id;

-- name: SetNodeState :exec
UPDATE nodes SET state = @state, reason = CASE WHEN @reason::text = '' THEN reason ELSE @reason END,
    alive_at = CASE WHEN @state = 'alive' THEN coalesce(alive_at, clock_timestamp()) ELSE alive_at END,
    ended_at = CASE WHEN @state IN ('stopped', 'failed') THEN clock_timestamp() END
WHERE id = @id;

-- name: StartBilling :exec
-- Opens a usage interval for every held lease of the cluster, all at one instant, for at most the booked time that is left.
WITH leased AS (
    UPDATE leases SET state = 'billing' WHERE cluster_id = @cluster_id AND state = 'held' RETURNING id, host_id
), clock AS (SELECT clock_timestamp() AS at)
INSERT INTO usage (id, lease_id, host_id, started_at, confirmed_at, limit_at)
SELECT gen_random_uuid(), leased.id, leased.host_id, clock.at, clock.at, clock.at + @remaining::interval FROM leased, clock;

-- name: StopBilling :exec
-- Closes the open usage of a cluster where the hosts' heartbeats last confirmed it: what was not confirmed is not charged.
WITH closed AS (
    UPDATE usage u SET ended_at = clock_timestamp() -- the trigger sets it to what is confirmed
    FROM leases l
    WHERE l.id = u.lease_id AND l.cluster_id = @cluster_id AND u.ended_at IS NULL
    RETURNING u.lease_id
)
UPDATE leases SET state = 'held' WHERE id IN (SELECT lease_id FROM closed) AND state = 'billing';

-- name: CloseLeases :exec
-- Closes the leases of one node, or of the whole cluster without one. Their usage must be closed.
UPDATE leases SET state = 'closed', closed_at = clock_timestamp(), close_party = @close_party, close_reason = @close_reason
WHERE cluster_id = @cluster_id AND state <> 'closed'
  AND (sqlc.narg(node_id)::uuid IS NULL OR node_id = sqlc.narg(node_id));

-- name: HasOpenLeases :one
SELECT EXISTS (SELECT 1 FROM leases WHERE node_id = @node_id AND state <> 'closed');

-- name: NodePrice :one
-- What a GPU of the node was leased for; it stays on closed leases.
SELECT price_per_gpu_hour FROM leases WHERE node_id = @node_id ORDER BY opened_at DESC LIMIT 1;

-- name: InsertReceipt :exec
INSERT INTO delivery_receipts (cluster_id, document, sha256) VALUES (@cluster_id, @document, @sha256);

-- name: LeasedGPUs :many
-- What a receipt lists: every open lease of a cluster with the GPU as inventoried.
SELECT l.id AS lease_id, l.node_id, l.host_id, l.price_per_gpu_hour, n.ordinal, n.slot, g.uuid, g.product, g.model, g.memory_mib, g.healthy
FROM leases l JOIN gpus g ON g.id = l.gpu_id JOIN nodes n ON n.id = l.node_id
WHERE l.cluster_id = @cluster_id AND l.state <> 'closed'
ORDER BY n.ordinal, g.ordinal;

-- name: RequestRelease :one
-- Of a cluster that has ended, or is to be released already, nothing changes.
UPDATE clusters SET
    release_requested_at = CASE WHEN ended_at IS NULL THEN coalesce(release_requested_at, now()) ELSE release_requested_at END,
    version = version + (ended_at IS NULL AND release_requested_at IS NULL)::int
WHERE id = @id AND org_id = @org_id
RETURNING id;

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
