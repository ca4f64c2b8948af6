-- Looking at a cluster --------------------------------------------------------------

-- name: Clock :one
SELECT clock_timestamp()::timestamptz AS now;

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
SELECT n.*, h.state AS host_state, h.state IN ('lost', 'quarantined', 'retired') AS host_gone, h.last_seen_at AS host_seen_at,
       h.org_id AS host_org_id, h.region, h.simulated,
       NOT EXISTS (SELECT 1 FROM leases l JOIN gpus g ON g.id = l.gpu_id
                   WHERE l.node_id = n.id AND l.state <> 'closed' AND NOT g.healthy) AS gpus_well,
       EXISTS (SELECT 1 FROM leases l WHERE l.node_id = n.id AND l.state <> 'closed') AS leased
FROM nodes n JOIN hosts h ON h.id = n.host_id
WHERE n.cluster_id = @cluster_id
ORDER BY n.role DESC, n.ordinal, n.id;

-- name: GetRaySummary :one
SELECT observed_at, nodes, running_jobs, busy FROM ray_summaries WHERE cluster_id = @cluster_id;

-- name: BilledMilliseconds :one
-- Cluster time billed so far: whenever any of its leases was, for leases may start and end at different times. The open intervals count
-- as far as they are confirmed. Rounded up, so that what is left never exceeds what was booked.
SELECT ceil(coalesce(sum(extract(epoch FROM upper(period) - lower(period))), 0) * 1000)::bigint AS confirmed_ms
FROM (
    SELECT unnest(range_agg(tstzrange(u.started_at, u.confirmed_at))) AS period
    FROM usage u JOIN leases l ON l.id = u.lease_id
    WHERE l.cluster_id = @cluster_id AND u.confirmed_at > u.started_at
) periods;

-- name: RatePerHour :one
-- What a cluster costs an hour as it runs now.
SELECT coalesce(sum(price_per_gpu_hour), 0)::bigint AS per_hour FROM leases WHERE cluster_id = @cluster_id AND state = 'billing';

-- name: HasOpenLeases :one
SELECT EXISTS (SELECT 1 FROM leases WHERE node_id = @node_id AND state <> 'closed');

-- name: NodePrice :one
-- What a GPU of the node was leased for; it stays on closed leases.
SELECT price_per_gpu_hour FROM leases WHERE node_id = @node_id ORDER BY opened_at DESC LIMIT 1;

-- name: LeasedGPUs :many
-- What a receipt lists: every open lease of some nodes with the GPU as inventoried.
SELECT l.id AS lease_id, l.node_id, l.host_id, l.price_per_gpu_hour, n.ordinal, n.slot, g.uuid, g.product, g.model, g.memory_mib, g.healthy
FROM leases l JOIN gpus g ON g.id = l.gpu_id JOIN nodes n ON n.id = l.node_id
WHERE l.cluster_id = @cluster_id AND l.state <> 'closed' AND l.node_id = ANY(@nodes::uuid[])
ORDER BY n.ordinal, g.ordinal;

-- Leading it through its life ---------------------------------------------------------

-- name: SetClusterState :exec
-- A GPU's next use is planned by forecast_end. A cluster without GPUs cannot lose them, and a wish to resume is spent with the change.
UPDATE clusters SET state = @state, version = version + 1, phase_at = clock_timestamp(),
    ready_at = CASE WHEN @state = 'ready' THEN coalesce(ready_at, clock_timestamp()) ELSE ready_at END,
    ended_at = CASE WHEN @state IN ('released', 'failed') THEN clock_timestamp() END,
    forecast_end = coalesce(clock_timestamp() + sqlc.narg(ends_in_ms)::bigint * interval '1 millisecond', forecast_end),
    preempt_at = CASE WHEN @state <> 'parked' THEN preempt_at END,
    resume_requested_at = NULL,
    fault_party = coalesce(fault_party, sqlc.narg(fault_party)),
    end_reason = CASE WHEN end_reason = '' THEN @end_reason ELSE end_reason END
WHERE id = @id;

-- name: TouchCluster :exec
UPDATE clusters SET version = version + 1 WHERE id = @id;

-- name: CountReplacement :exec
UPDATE clusters SET replacements = replacements + 1, version = version + 1 WHERE id = @id;

-- name: SetPlaces :exec
UPDATE clusters SET places = @places::integer[], joining_places = @joining_places::integer[], node_count = cardinality(@places::integer[]),
    version = version + 1
WHERE id = @id;

-- name: SetNotices :exec
UPDATE clusters SET notices = @notices::text[], version = version + 1 WHERE id = @id;

-- name: ForgetResume :exec
UPDATE clusters SET resume_requested_at = NULL, version = version + 1 WHERE id = @id;

-- name: SetActive :exec
UPDATE clusters SET active_at = greatest(active_at, clock_timestamp()) WHERE id = @id;

-- name: SetNodeState :exec
UPDATE nodes SET state = @state, reason = CASE WHEN @reason::text = '' THEN reason ELSE @reason END,
    alive_at = CASE WHEN @state = 'alive' THEN coalesce(alive_at, clock_timestamp()) ELSE alive_at END,
    ended_at = CASE WHEN @state IN ('stopped', 'failed') THEN clock_timestamp() END
WHERE id = @id;

-- name: StopNode :exec
UPDATE nodes SET state = 'stopping', stopping_at = clock_timestamp(), drain_ms = @drain_ms WHERE id = @id;

-- name: StartBilling :exec
-- Opens a usage interval for every held lease of some nodes, all at one instant: until the others of the cluster end, or for the booked
-- time that is left. That is also when the GPUs are expected to be free.
WITH leased AS (
    UPDATE leases SET state = 'billing' WHERE cluster_id = @cluster_id AND node_id = ANY(@nodes::uuid[]) AND state = 'held' RETURNING id, host_id
), clock AS (
    SELECT clock_timestamp() AS at
), period AS (
    SELECT clock.at, greatest(clock.at, coalesce(
        (SELECT min(u.limit_at) FROM usage u JOIN leases l ON l.id = u.lease_id WHERE l.cluster_id = @cluster_id AND u.ended_at IS NULL),
        clock.at + @remaining::interval)) AS limit_at
    FROM clock
), opened AS (
    INSERT INTO usage (id, lease_id, host_id, started_at, confirmed_at, limit_at)
    SELECT gen_random_uuid(), leased.id, leased.host_id, period.at, period.at, period.limit_at FROM leased, period
)
UPDATE clusters SET forecast_end = period.limit_at FROM period WHERE clusters.id = @cluster_id;

-- name: StopBilling :exec
-- Closes the open usage of one node, or of the whole cluster without one, where the hosts' heartbeats last confirmed it: what was not
-- confirmed is not charged.
WITH closed AS (
    UPDATE usage u SET ended_at = clock_timestamp() -- the trigger sets it to what is confirmed
    FROM leases l
    WHERE l.id = u.lease_id AND l.cluster_id = @cluster_id AND u.ended_at IS NULL
      AND (sqlc.narg(node_id)::uuid IS NULL OR l.node_id = sqlc.narg(node_id))
    RETURNING u.lease_id
)
UPDATE leases SET state = 'held' WHERE id IN (SELECT lease_id FROM closed) AND state = 'billing';

-- name: CloseLeases :exec
-- Closes the leases of one node, or of the whole cluster without one. Their usage must be closed.
UPDATE leases SET state = 'closed', closed_at = clock_timestamp(), close_party = @close_party, close_reason = @close_reason
WHERE cluster_id = @cluster_id AND state <> 'closed'
  AND (sqlc.narg(node_id)::uuid IS NULL OR node_id = sqlc.narg(node_id));

-- name: InsertReceipt :exec
INSERT INTO delivery_receipts (cluster_id, made_at, document, sha256) VALUES (@cluster_id, clock_timestamp(), @document, @sha256);

-- Its customer's wishes ---------------------------------------------------------------

-- name: RequestRelease :one
-- Of a cluster that has ended, or is to be released already, nothing changes.
UPDATE clusters SET
    release_requested_at = CASE WHEN ended_at IS NULL THEN coalesce(release_requested_at, now()) ELSE release_requested_at END,
    version = version + (ended_at IS NULL AND release_requested_at IS NULL)::int
WHERE id = @id AND org_id = @org_id
RETURNING id;

-- name: LockOwnCluster :one
SELECT * FROM clusters WHERE id = @id AND org_id = @org_id FOR NO KEY UPDATE;

-- name: RequestRemoval :exec
UPDATE nodes SET remove_requested_at = coalesce(remove_requested_at, now()) WHERE id = @id;

-- name: RequestResume :exec
UPDATE clusters SET resume_requested_at = coalesce(resume_requested_at, now()), version = version + 1 WHERE id = @id;

-- name: SetAutoStop :exec
-- The time until parking begins again, so that a change does not stop a cluster at once.
UPDATE clusters SET park_after_ms = sqlc.narg(park_after_ms), release_after_ms = sqlc.narg(release_after_ms),
    active_at = greatest(active_at, now()), version = version + 1
WHERE id = @id;

-- name: TouchActive :exec
-- Somebody uses the cluster.
UPDATE clusters SET active_at = greatest(active_at, now()) WHERE id = @id AND ended_at IS NULL;

-- name: Runway :many
-- An organisation's clusters with what they cost now and what is left of their holds: usage is priced as settlement does it.
SELECT c.id, c.name, c.state, c.phase_at, c.forecast_end, c.preempt_at, c.park_after_ms, c.release_after_ms, c.active_at, c.hold_base_units,
       coalesce((SELECT sum(l.price_per_gpu_hour) FROM leases l WHERE l.cluster_id = c.id AND l.state = 'billing'), 0)::bigint AS per_hour,
       coalesce((SELECT sum(floor(l.price_per_gpu_hour * used.ms / 3600000))
                 FROM leases l JOIN LATERAL (
                     SELECT floor(sum(extract(epoch FROM u.confirmed_at - u.started_at)) * 1000) AS ms FROM usage u WHERE u.lease_id = l.id
                 ) used ON true
                 WHERE l.cluster_id = c.id), 0)::bigint AS spent
FROM clusters c
WHERE c.org_id = @org_id AND c.ended_at IS NULL
ORDER BY c.id;
