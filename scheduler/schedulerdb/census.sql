-- The fleet as placement sees it ------------------------------------------------

-- name: PreferIndexes :exec
-- Until the transaction ends.
SELECT set_config('enable_seqscan', 'off', true);

-- name: PlanCacheMode :exec
-- Until the transaction ends.
SELECT set_config('plan_cache_mode', @mode, true);

-- name: FleetChanges :many
-- The feed since a transaction, with the snapshot that it was read in: what is not in that snapshot is in the feed of the next
-- reader that starts from the snapshot's xmin. There is always a row; without a change its id is 0.
SELECT pg_current_snapshot()::text AS snapshot, clock_timestamp()::timestamptz AS now,
       coalesce(c.id, 0)::bigint AS id, c.xid, c.hosts
FROM (SELECT 1) AS one LEFT JOIN (
    SELECT f.id, f.xid, f.hosts FROM fleet_changes f WHERE f.xid >= sqlc.arg(since)::xid8
) AS c ON true
ORDER BY c.id
LIMIT @page;

-- name: PurgeFleetChanges :execrows
DELETE FROM fleet_changes WHERE xid < @before::xid8;

-- name: CensusPage :many
SELECT id::uuid FROM hosts WHERE id > @after::uuid AND state <> 'retired' ORDER BY id LIMIT @page;

-- name: CensusHosts :many
SELECT h.id, h.org_id, h.kind, h.state, h.connected, h.region, h.site, h.machine_id, h.simulated, h.runtime,
       coalesce(h.cpus, 0)::int AS cpus, coalesce(h.memory_bytes, 0)::bigint AS memory_bytes,
       coalesce(h.disk_free_bytes, 0)::bigint AS disk_bytes, coalesce(h.driver_major, 0)::int AS driver_major, h.images,
       coalesce(h.rtt_us, 0)::int AS rtt_us, h.failing_gate, h.reliability_bps, h.trust_tier,
       coalesce(a.active, false)::boolean AS active, coalesce(a.price_per_gpu_hour, 0)::bigint AS price,
       coalesce(a.floor_per_gpu_hour, 0)::bigint AS floor, coalesce(a.rules, '{}')::jsonb AS rules
FROM hosts h LEFT JOIN asks a ON a.host_id = h.id
WHERE h.id = ANY(@hosts::uuid[]) AND h.state <> 'retired';

-- name: CensusGPUs :many
-- With the open lease of each: forecast_end is NULL without one.
SELECT g.host_id, g.ordinal, g.model, g.memory_mib, g.compute_capability, g.healthy, c.forecast_end,
       coalesce(c.kind = 'spot' AND c.preempt_at IS NULL, false)::boolean AS spot
FROM gpus g
LEFT JOIN leases l ON l.gpu_id = g.id AND l.state <> 'closed'
LEFT JOIN clusters c ON c.id = l.cluster_id
WHERE g.host_id = ANY(@hosts::uuid[])
ORDER BY g.host_id, g.ordinal;

-- name: CensusReservations :many
SELECT r.host_id, g.ordinal, g.model, lower(r.during)::timestamptz AS starts_at, upper(r.during)::timestamptz AS ends_at
FROM reservations r JOIN gpus g ON g.id = r.gpu_id
WHERE r.host_id = ANY(@hosts::uuid[]) AND r.released_at IS NULL
ORDER BY r.host_id, r.during, g.ordinal;

-- name: CensusWindows :many
SELECT host_id, starts_at, ends_at FROM maintenance_windows
WHERE host_id = ANY(@hosts::uuid[]) AND cancelled_at IS NULL AND ended_at IS NULL AND ends_at > now()
ORDER BY host_id, starts_at;

-- name: Utilisation :many
-- Of the latest sample of each model and region, in basis points.
SELECT DISTINCT ON (gpu_model, region) gpu_model, region, (CASE WHEN gpus = 0 THEN 0 ELSE 10000::bigint * leased / gpus END)::int AS bps
FROM market_history
WHERE at > now() - interval '10 minutes'
ORDER BY gpu_model, region, at DESC;
