-- Join tokens -----------------------------------------------------------------

-- name: OrganisationIsPlatform :one
SELECT platform FROM organisations WHERE id = @id;

-- name: InsertJoinToken :one
INSERT INTO join_tokens (id, org_id, token_hash, host_kind, region, site, created_by, expires_at)
VALUES (@id, @org_id, @token_hash, @host_kind, @region, @site, @created_by, now() + @lifetime::interval)
RETURNING created_at, expires_at;

-- name: ListJoinTokens :many
SELECT id, host_kind, region, site, created_at, expires_at, revoked_at, used_at, host_id, expires_at <= now() AS expired
FROM join_tokens WHERE org_id = @org_id
ORDER BY id DESC LIMIT @page;

-- name: RevokeJoinToken :one
-- A token that was used or revoked stays as it is.
UPDATE join_tokens SET revoked_at = CASE WHEN used_at IS NULL THEN coalesce(revoked_at, now()) END
WHERE id = @id AND org_id = @org_id
RETURNING (used_at IS NOT NULL)::boolean AS used;

-- name: LockJoinToken :one
SELECT id, org_id, host_kind, region, site, revoked_at, used_at, host_id, expires_at <= now() AS expired
FROM join_tokens WHERE token_hash = @token_hash
FOR UPDATE;

-- name: SpendJoinToken :exec
UPDATE join_tokens SET used_at = now(), host_id = @host_id WHERE id = @id;

-- Identity --------------------------------------------------------------------

-- name: InsertHost :exec
INSERT INTO hosts (id, org_id, kind, name, region, site, machine_id, key_fingerprint, certificate_request_hash,
    certificate_pem, certificate_expires_at, agent_version, reliability_bps)
VALUES (@id, @org_id, @kind, @name, @region, @site, @machine_id, @key_fingerprint, @certificate_request_hash,
    @certificate_pem, @certificate_expires_at, @agent_version, @reliability_bps);

-- name: KeyIsEnrolled :one
SELECT EXISTS (SELECT 1 FROM hosts WHERE key_fingerprint = @key_fingerprint);

-- name: HostStanding :one
-- What the authorizer decides on.
SELECT state, state_reason, key_fingerprint FROM hosts WHERE id = @id;

-- name: LockCertificate :one
SELECT state, state_reason, key_fingerprint, certificate_generation, certificate_request_hash, certificate_pem
FROM hosts WHERE id = @id FOR UPDATE;

-- name: SetCertificate :exec
UPDATE hosts SET certificate_generation = @certificate_generation, certificate_request_hash = @certificate_request_hash,
    certificate_pem = @certificate_pem, certificate_expires_at = @certificate_expires_at
WHERE id = @id;

-- name: Quarantine :execrows
WITH changed AS (
    UPDATE hosts SET state = 'quarantined', state_reason = @reason
    WHERE id = @id AND state NOT IN ('quarantined', 'retired')
    RETURNING id
)
SELECT pg_notify('muster_host', id::text), pg_notify('muster_scheduler', '') FROM changed;

-- Connection ------------------------------------------------------------------

-- name: LockHost :one
SELECT id, kind, state, state_reason, machine_id, simulated, failing_gate,
    EXISTS (SELECT 1 FROM nodes WHERE host_id = @id AND ended_at IS NULL) AS busy
FROM hosts WHERE id = @id FOR UPDATE;

-- name: SetHostState :exec
UPDATE hosts SET state = @state, state_reason = @state_reason WHERE id = @id;

-- name: HasOpenWork :one
-- Whether a host counts as leased.
SELECT EXISTS (SELECT 1 FROM nodes WHERE host_id = @host_id AND ended_at IS NULL);

-- name: MarkConnected :one
UPDATE hosts SET connected = true, suspect_since = NULL, last_seen_at = now(), seen_slack_ms = 0, stream = stream + 1,
    lost_after_ms = @lost_after_ms, agent_version = @agent_version, protocol_version = @protocol_version
WHERE id = @id RETURNING stream;

-- name: SetLostAfter :exec
UPDATE hosts SET lost_after_ms = @lost_after_ms WHERE id = @id;

-- name: Confirm :batchmany
-- The heartbeats of one flush, each as old as it is, in id order as every statement on several hosts. The rows stay HOT updates: no column
-- here is indexed. A heartbeat older than what is known already changes nothing, and one of a stream that is not the newest leaves the
-- slack to that one. Returned are the hosts that count as silent.
WITH beat AS (
    SELECT unnest(@hosts::uuid[]) AS id, unnest(@streams::bigint[]) AS stream, unnest(@generations::bigint[]) AS generation,
        unnest(@ages_ms::bigint[]) AS age_ms, unnest(@lost_after_ms::integer[]) AS lost_after_ms, unnest(@slack_ms::integer[]) AS slack_ms
), ordered AS (
    SELECT h.id, beat.stream, beat.generation, beat.age_ms, beat.lost_after_ms, beat.slack_ms
    FROM hosts h JOIN beat ON beat.id = h.id
    WHERE h.state NOT IN ('lost', 'retired')
    ORDER BY h.id FOR NO KEY UPDATE OF h
), beaten AS (
    UPDATE hosts h SET last_seen_at = greatest(h.last_seen_at, now() - o.age_ms * interval '1 millisecond'),
        lost_after_ms = o.lost_after_ms,
        seen_slack_ms = CASE WHEN h.stream = o.stream THEN o.slack_ms ELSE h.seen_slack_ms END,
        applied_generation = greatest(h.applied_generation, least(o.generation, h.desired_generation))
    FROM ordered o WHERE h.id = o.id
    RETURNING h.id, (NOT h.connected OR h.suspect_since IS NOT NULL) AS silent
)
SELECT id FROM beaten WHERE silent;

-- name: MarkHeard :exec
-- Hosts that were silent and have been heard again.
WITH ordered AS (
    SELECT id FROM hosts WHERE id = ANY(@hosts::uuid[]) ORDER BY id FOR NO KEY UPDATE
)
UPDATE hosts h SET connected = true, suspect_since = NULL FROM ordered WHERE h.id = ordered.id AND h.state NOT IN ('lost', 'retired');

-- name: ConfirmUsage :batchexec
-- Only for nodes that still run, on hosts in good standing. A node never runs again once it has ended, so one that does has run since it
-- was last confirmed, also while its host was not heard.
UPDATE usage u SET confirmed_at = greatest(u.confirmed_at, now() - beat.age_ms * interval '1 millisecond')
FROM (SELECT unnest(@hosts::uuid[]) AS id, unnest(@ages_ms::bigint[]) AS age_ms) beat, hosts h, leases l, nodes n
WHERE u.host_id = beat.id AND u.ended_at IS NULL AND h.id = beat.id AND h.state NOT IN ('lost', 'quarantined', 'retired')
  AND l.id = u.lease_id AND n.id = l.node_id AND n.state IN ('running', 'alive');

-- name: AnySilent :one
-- Whether MarkSuspect or MarkLost would find any host, or one is suspect and not lost yet.
SELECT EXISTS (
    SELECT 1 FROM hosts
    WHERE (connected OR state IN ('verifying', 'idle', 'leased', 'draining')) AND lost_after_ms < @hearing_ms::bigint AND last_seen_at <
        now() - (least(greatest((lost_after_ms - @slack_ms::integer) / 2, @least_ms::integer), lost_after_ms) + seen_slack_ms) * interval '1 millisecond'
);

-- name: MarkSuspect :execrows
-- Silent for one and a half of the intervals that lost_after_ms was made of. A host counts as silent only while the gateway itself has
-- been able to hear for as long as the host may be silent.
WITH ordered AS (
    SELECT id FROM hosts
    WHERE connected AND lost_after_ms < @hearing_ms::bigint AND last_seen_at <
        now() - (greatest((lost_after_ms - @slack_ms::integer) / 2, @least_ms::integer) + seen_slack_ms) * interval '1 millisecond'
    ORDER BY id FOR NO KEY UPDATE
)
UPDATE hosts h SET connected = false, suspect_since = coalesce(h.suspect_since, now()) FROM ordered WHERE h.id = ordered.id;

-- name: MarkLost :many
-- Returned with each host is the newest stream that was lost with it: a host may be back on another before the caller hears of this.
WITH ordered AS (
    SELECT id FROM hosts
    WHERE state IN ('verifying', 'idle', 'leased', 'draining') AND lost_after_ms < @hearing_ms::bigint
      AND last_seen_at < now() - (lost_after_ms + seen_slack_ms) * interval '1 millisecond'
    ORDER BY id FOR NO KEY UPDATE
)
UPDATE hosts h SET state = 'lost', connected = false, suspect_since = coalesce(h.suspect_since, now()),
    state_reason = CASE WHEN h.state_reason = @cordoned::text THEN @cordoned_lost::text ELSE @reason::text END
FROM ordered WHERE h.id = ordered.id
RETURNING h.id, h.stream;

-- name: ConnectedHosts :many
-- What a gateway compares its streams with.
SELECT id, state, state_reason, desired_generation, connected FROM hosts WHERE id = ANY(@hosts::uuid[]);

-- name: WakeScheduler :exec
SELECT pg_notify('muster_scheduler', '');

-- name: WakeGateway :exec
SELECT pg_notify('muster_host', id::text) FROM hosts WHERE id = @id;

-- name: BumpDesired :exec
-- Nodes of these hosts have ended, so that the desired state names them no longer.
WITH ordered AS (
    SELECT id FROM hosts WHERE id = ANY(@hosts::uuid[]) ORDER BY id FOR NO KEY UPDATE
), bumped AS (
    UPDATE hosts h SET desired_generation = desired_generation + 1 FROM ordered WHERE h.id = ordered.id RETURNING h.id
)
SELECT pg_notify('muster_host', id::text) FROM bumped;

-- Inventory -------------------------------------------------------------------

-- name: InventoryHash :one
SELECT sha256 FROM host_inventories WHERE host_id = @host_id;

-- name: UpsertInventory :exec
INSERT INTO host_inventories (host_id, document, sha256) VALUES (@host_id, @document, @sha256)
ON CONFLICT (host_id) DO UPDATE SET document = excluded.document, sha256 = excluded.sha256, changed_at = now();

-- name: SetMeasured :execrows
-- What placement asks of a host, written on change only.
UPDATE hosts h SET simulated = m.simulated, machine_id = m.machine_id, runtime = m.runtime, cpus = m.cpus, memory_bytes = m.memory_bytes,
    disk_free_bytes = m.disk_free_bytes, driver_major = m.driver_major, images = m.images
FROM (SELECT @simulated::boolean AS simulated, @machine_id::text AS machine_id, @runtime::text AS runtime, @cpus::integer AS cpus,
    @memory_bytes::bigint AS memory_bytes, sqlc.narg(disk_free_bytes)::bigint AS disk_free_bytes,
    sqlc.narg(driver_major)::integer AS driver_major, @images::text[] AS images) m
WHERE h.id = @id AND (h.simulated, h.machine_id, h.runtime, h.cpus, h.memory_bytes, h.disk_free_bytes, h.driver_major, h.images) IS DISTINCT FROM
    (m.simulated, m.machine_id, m.runtime, m.cpus, m.memory_bytes, m.disk_free_bytes, m.driver_major, m.images);

-- Health ----------------------------------------------------------------------

-- name: SetDiskFree :exec
UPDATE hosts SET disk_free_bytes = @disk_free_bytes WHERE id = @id AND disk_free_bytes IS DISTINCT FROM @disk_free_bytes;

-- name: SetRTT :exec
UPDATE hosts SET rtt_us = @rtt_us WHERE id = @id;

-- name: SetFailingGate :exec
UPDATE hosts SET failing_gate = @failing_gate WHERE id = @id AND failing_gate <> @failing_gate;

-- name: GatesOf :many
SELECT host_id, gate, state, measured, required, fix, since FROM host_gates WHERE host_id = ANY(@hosts::uuid[]) ORDER BY host_id, gate;

-- name: UpsertGates :exec
-- Written on change only; since is when the state, not the wording, last changed.
INSERT INTO host_gates (host_id, gate, state, measured, required, fix)
SELECT @host_id, unnest(@gates::text[]), unnest(@states::text[]), unnest(@measured::text[]), unnest(@required::text[]), unnest(@fixes::text[])
ON CONFLICT (host_id, gate) DO UPDATE SET state = excluded.state, measured = excluded.measured, required = excluded.required, fix = excluded.fix,
    since = CASE WHEN host_gates.state = excluded.state THEN host_gates.since ELSE now() END
WHERE (host_gates.state, host_gates.measured, host_gates.required, host_gates.fix) IS DISTINCT FROM
    (excluded.state, excluded.measured, excluded.required, excluded.fix);

-- name: LockGPUs :many
-- The GPUs of a host and those that it claims, wherever they are.
SELECT g.id, g.host_id, g.uuid, g.ordinal, g.model, g.product, g.memory_mib, g.healthy, h.state AS host_state, h.state_reason AS host_state_reason
FROM gpus g JOIN hosts h ON h.id = g.host_id
WHERE g.host_id = @host_id OR g.uuid = ANY(@uuids::text[])
ORDER BY g.id
FOR UPDATE OF g;

-- name: UpsertGPUs :many
-- Writes nothing of a GPU that another host has just inserted: its row has an id that this plan does not know.
INSERT INTO gpus (id, host_id, uuid, ordinal, model, product, memory_mib, compute_capability, healthy, health_note)
SELECT unnest(@ids::uuid[]), @host_id, unnest(@uuids::text[]), unnest(@ordinals::integer[]), unnest(@models::text[]), unnest(@products::text[]),
    unnest(@memory_mib::bigint[]), unnest(@compute_capabilities::text[]), unnest(@healthy::boolean[]), unnest(@health_notes::text[])
ON CONFLICT (uuid) DO UPDATE SET host_id = excluded.host_id, ordinal = excluded.ordinal, model = excluded.model,
    product = excluded.product, memory_mib = excluded.memory_mib, compute_capability = excluded.compute_capability,
    healthy = excluded.healthy, health_note = excluded.health_note
WHERE gpus.id = excluded.id
RETURNING uuid;

-- name: SetGPUMissing :exec
UPDATE gpus SET healthy = false, health_note = @health_note, ordinal = @ordinal WHERE id = @id;

-- Reports ---------------------------------------------------------------------

-- name: LockNodes :many
-- The live nodes of some hosts, with what decides which report of them is plausible.
SELECT n.id, n.host_id, n.cluster_id, n.role, n.state, c.state AS cluster_state, h.desired_generation
FROM nodes n JOIN clusters c ON c.id = n.cluster_id JOIN hosts h ON h.id = n.host_id
WHERE n.host_id = ANY(@hosts::uuid[]) AND n.ended_at IS NULL
ORDER BY n.id
FOR UPDATE OF n;

-- name: SetNodeStates :exec
UPDATE nodes n SET state = change.state,
    reason = CASE WHEN change.reason = '' THEN n.reason ELSE change.reason END,
    ended_at = CASE WHEN change.state IN ('stopped', 'failed') THEN clock_timestamp() END
FROM (SELECT unnest(@nodes::uuid[]) AS id, unnest(@states::text[]) AS state, unnest(@reasons::text[]) AS reason) change
WHERE n.id = change.id AND n.ended_at IS NULL;

-- name: UpsertRaySummary :exec
INSERT INTO ray_summaries (cluster_id, observed_at, nodes, running_jobs, busy)
VALUES (@cluster_id, now(), @nodes, @running_jobs, @busy)
ON CONFLICT (cluster_id) DO UPDATE SET observed_at = excluded.observed_at, nodes = excluded.nodes,
    running_jobs = excluded.running_jobs, busy = excluded.busy;

-- Desired state ---------------------------------------------------------------

-- name: DesiredNodes :many
-- What should run on a host, in one snapshot with its generation. A host without nodes gives one row with an absent node.
SELECT h.desired_generation, h.region,
       n.id AS node_id, n.cluster_id, coalesce(n.role, '')::text AS role, coalesce(n.slot, 0)::int AS slot,
       coalesce(n.state = 'stopping' OR c.state = 'draining' AND n.role <> 'head', false)::boolean AS stop, coalesce(n.drain_ms, 0)::int AS drain_ms,
       coalesce(c.ray_version, '')::text AS ray_version, coalesce(c.ray_token_sealed, '')::bytea AS ray_token_sealed,
       coalesce(head.slot, -1)::int AS head_slot, coalesce(leased.uuids, '{}')::text[] AS gpu_uuids
FROM hosts h
LEFT JOIN nodes n ON n.host_id = h.id AND n.ended_at IS NULL
LEFT JOIN clusters c ON c.id = n.cluster_id
LEFT JOIN LATERAL (
    SELECT slot FROM nodes WHERE cluster_id = n.cluster_id AND role = 'head' ORDER BY id DESC LIMIT 1
) head ON true
LEFT JOIN LATERAL (
    SELECT array_agg(g.uuid ORDER BY g.ordinal) AS uuids
    FROM leases l JOIN gpus g ON g.id = l.gpu_id WHERE l.node_id = n.id AND l.state <> 'closed'
) leased ON true
WHERE h.id = @host_id
ORDER BY n.id;

-- Reading and steering --------------------------------------------------------

-- name: HostsOf :many
SELECT h.id, h.org_id, h.name, h.kind, h.state, h.state_reason, h.region, h.site, h.connected, h.simulated, h.last_seen_at, h.enrolled_at,
       h.agent_version, h.certificate_expires_at, h.desired_generation, h.applied_generation, coalesce(i.document, '{}')::jsonb AS inventory,
       h.rtt_us, h.failing_gate, h.suspect_since, h.reliability_bps, h.trust_tier
FROM hosts h LEFT JOIN host_inventories i ON i.host_id = h.id
WHERE h.org_id = @org_id AND (sqlc.narg(host)::uuid IS NULL OR h.id = sqlc.narg(host))
ORDER BY h.id DESC LIMIT @page;

-- name: GPUsOf :many
SELECT g.id, g.host_id, g.uuid, g.ordinal, g.model, g.product, g.memory_mib, g.compute_capability, g.healthy, g.health_note,
       EXISTS (SELECT 1 FROM leases l WHERE l.gpu_id = g.id AND l.state <> 'closed') AS leased
FROM gpus g WHERE g.host_id = ANY(@hosts::uuid[])
ORDER BY g.host_id, g.ordinal;

-- name: NodesOf :many
SELECT id, host_id, cluster_id, role, state, gpus, created_at
FROM nodes WHERE host_id = ANY(@hosts::uuid[]) AND ended_at IS NULL
ORDER BY id;

-- name: LockOwnHost :one
SELECT id, state, state_reason, clock_timestamp()::timestamptz AS now FROM hosts
WHERE id = @id AND org_id = @org_id FOR UPDATE;

-- name: SetTier :exec
UPDATE hosts SET trust_tier = @trust_tier WHERE id = @id;

-- Maintenance -----------------------------------------------------------------

-- name: WindowsOf :many
SELECT * FROM maintenance_windows WHERE host_id = @host_id ORDER BY starts_at DESC, id DESC LIMIT @page;

-- name: OpenWindowsOf :many
SELECT * FROM maintenance_windows
WHERE host_id = ANY(@hosts::uuid[]) AND cancelled_at IS NULL AND ended_at IS NULL
ORDER BY host_id, starts_at;

-- name: OverlappingWindow :one
SELECT id, starts_at, ends_at FROM maintenance_windows
WHERE host_id = @host_id AND cancelled_at IS NULL AND tstzrange(starts_at, ends_at) && tstzrange(@starts_at::timestamptz, @ends_at::timestamptz)
ORDER BY starts_at LIMIT 1;

-- name: CountOpenWindows :one
SELECT count(*) FROM maintenance_windows WHERE host_id = @host_id AND cancelled_at IS NULL AND ended_at IS NULL;

-- name: InsertWindow :one
INSERT INTO maintenance_windows (id, host_id, host_number, org_id, starts_at, ends_at, note, created_by)
SELECT @id, h.id, h.number, h.org_id, @starts_at, @ends_at, @note, @created_by FROM hosts h WHERE h.id = @host_id
RETURNING *;

-- name: LockWindow :one
SELECT * FROM maintenance_windows WHERE id = @id AND host_id = @host_id FOR UPDATE;

-- name: CancelWindow :one
UPDATE maintenance_windows SET cancelled_at = now(), ended_at = CASE WHEN begun_at IS NOT NULL THEN now() END WHERE id = @id RETURNING *;

-- name: CancelWindowsOf :exec
UPDATE maintenance_windows SET cancelled_at = now(), ended_at = CASE WHEN begun_at IS NOT NULL THEN now() END
WHERE host_id = @host_id AND cancelled_at IS NULL AND ended_at IS NULL;

-- name: InMaintenance :one
SELECT EXISTS (SELECT 1 FROM maintenance_windows
    WHERE host_id = @host_id AND begun_at IS NOT NULL AND ended_at IS NULL AND cancelled_at IS NULL);

-- name: AssertLeader :exec
SELECT assert_leader('scheduler', @term);

-- name: DueWindows :many
-- Windows with something to do: to tell customers of, to begin or to end. Locked by host and then by window, as everywhere.
SELECT w.id, w.host_id, w.starts_at, w.ends_at, w.note, h.name AS host_name, h.state AS host_state, h.state_reason AS host_state_reason,
    (w.announced_at IS NULL)::boolean AS announce,
    (w.begun_at IS NULL AND w.starts_at <= clock_timestamp() AND w.ends_at > clock_timestamp())::boolean AS begin,
    (w.ends_at <= clock_timestamp())::boolean AS over
FROM maintenance_windows w JOIN hosts h ON h.id = w.host_id
WHERE w.cancelled_at IS NULL AND w.ended_at IS NULL
  AND (w.announced_at IS NULL OR w.begun_at IS NULL AND w.starts_at <= clock_timestamp() OR w.ends_at <= clock_timestamp())
ORDER BY h.id, w.id LIMIT @page
FOR NO KEY UPDATE OF h, w;

-- name: MarkWindow :exec
UPDATE maintenance_windows SET announced_at = coalesce(announced_at, now()),
    begun_at = CASE WHEN @begin::boolean THEN coalesce(begun_at, now()) ELSE begun_at END,
    ended_at = CASE WHEN @over::boolean THEN coalesce(ended_at, now()) ELSE ended_at END
WHERE id = @id;

-- name: NoticeClusters :exec
-- Tells the clusters with leases on a host that reach into a window.
WITH told AS (
    SELECT DISTINCT c.id, c.org_id FROM leases l JOIN clusters c ON c.id = l.cluster_id
    WHERE l.host_id = @host_id AND l.state <> 'closed' AND c.forecast_end > @starts_at
), event AS (
    INSERT INTO cluster_events (cluster_id, org_id, kind, message)
    SELECT id, org_id, 'notice', @message FROM told ORDER BY id
    RETURNING org_id
)
SELECT pg_notify('muster_cluster_events', org_id::text) FROM event;

-- History ---------------------------------------------------------------------

-- name: ObserveHosts :one
-- Adds a stretch of time to the present day of some hosts, in id order. Planned maintenance is not observed. Returned is the last host.
WITH page AS (
    SELECT h.id, (h.connected AND h.state IN ('idle', 'leased', 'draining', 'verifying'))::boolean AS online
    FROM hosts h
    WHERE (sqlc.narg(after)::uuid IS NULL OR h.id > sqlc.narg(after)) AND h.state NOT IN ('enrolled', 'retired') AND NOT EXISTS (SELECT 1 FROM maintenance_windows w
        WHERE w.host_id = h.id AND w.begun_at IS NOT NULL AND w.ended_at IS NULL AND w.cancelled_at IS NULL)
    ORDER BY h.id LIMIT @page
), written AS (
    INSERT INTO host_days AS d (host_id, day, observed_ms, online_ms)
    SELECT id, (now() AT TIME ZONE 'UTC')::date, elapsed.ms, elapsed.ms * online::integer
    FROM page CROSS JOIN (SELECT @elapsed_ms::bigint AS ms) elapsed
    ON CONFLICT (host_id, day) DO UPDATE SET observed_ms = d.observed_ms + excluded.observed_ms, online_ms = d.online_ms + excluded.online_ms
)
SELECT coalesce((SELECT id FROM page ORDER BY id DESC LIMIT 1), '00000000-0000-0000-0000-000000000000')::uuid AS last, (SELECT count(*) FROM page) AS hosts;

-- name: CountDeliveries :exec
-- Counts a day again: nodes that became part of a cluster, and nodes that failed on the owner's account. When a cluster ends because of
-- one of them, the others' leases close on an owner's account too; they have not failed.
WITH day AS (
    SELECT date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - @ago::interval AS begin
), delivered AS (
    SELECT n.host_id, count(*)::integer AS nodes FROM nodes n, day
    WHERE n.role = 'gpu' AND n.alive_at >= day.begin AND n.alive_at < day.begin + interval '24 hours' GROUP BY n.host_id
), failed AS (
    SELECT l.host_id, count(DISTINCT l.node_id)::integer AS nodes FROM leases l JOIN nodes n ON n.id = l.node_id, day
    WHERE n.state = 'failed' AND l.close_party = 'owner' AND l.closed_at >= day.begin AND l.closed_at < day.begin + interval '24 hours' GROUP BY l.host_id
)
INSERT INTO host_days AS d (host_id, day, delivered, failed)
SELECT coalesce(delivered.host_id, failed.host_id), (day.begin AT TIME ZONE 'UTC')::date, coalesce(delivered.nodes, 0), coalesce(failed.nodes, 0)
FROM (delivered FULL JOIN failed ON failed.host_id = delivered.host_id) CROSS JOIN day
ORDER BY 1
ON CONFLICT (host_id, day) DO UPDATE SET delivered = excluded.delivered, failed = excluded.failed
WHERE (d.delivered, d.failed) <> (excluded.delivered, excluded.failed);

-- name: HistoryPage :many
-- What the last days say of some hosts, in id order, with what is written of them.
SELECT h.id, h.reliability_bps, h.trust_tier, coalesce(sum(d.observed_ms), 0)::bigint AS observed_ms, coalesce(sum(d.online_ms), 0)::bigint AS online_ms,
    coalesce(sum(d.delivered), 0)::bigint AS delivered, coalesce(sum(d.failed), 0)::bigint AS failed
FROM hosts h LEFT JOIN host_days d ON d.host_id = h.id AND d.day > (now() AT TIME ZONE 'UTC')::date - @days::integer
WHERE (sqlc.narg(after)::uuid IS NULL OR h.id > sqlc.narg(after)) AND h.state <> 'retired'
GROUP BY h.id ORDER BY h.id LIMIT @page;

-- name: SetReliability :exec
WITH score AS (
    SELECT unnest(@hosts::uuid[]) AS id, unnest(@reliability::integer[]) AS reliability_bps, unnest(@tiers::smallint[]) AS trust_tier
), ordered AS (
    SELECT h.id, score.reliability_bps, score.trust_tier FROM hosts h JOIN score ON score.id = h.id ORDER BY h.id FOR NO KEY UPDATE OF h
)
UPDATE hosts h SET reliability_bps = o.reliability_bps, trust_tier = CASE WHEN h.trust_tier = 2 THEN 2 ELSE o.trust_tier END
FROM ordered o WHERE h.id = o.id;

-- Why a host does not earn ------------------------------------------------------

-- name: HostAsk :one
SELECT price_per_gpu_hour, active, updated_at FROM asks WHERE host_id = @host_id;

-- name: PeerPrices :one
-- What GPUs of a model cost that are leased now, and what market bookings have paid lately; lease ids are in time order.
SELECT coalesce((SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY l.price_per_gpu_hour)
            FROM leases l JOIN gpus g ON g.id = l.gpu_id WHERE l.state <> 'closed' AND g.model = @model), 0)::bigint AS hired_median,
       (SELECT count(*) FROM leases l JOIN gpus g ON g.id = l.gpu_id WHERE l.state <> 'closed' AND g.model = @model) AS hired,
       coalesce(max(recent.price_per_gpu_hour), 0)::bigint AS paid_max, count(*) AS paid
FROM (
    SELECT l.price_per_gpu_hour FROM leases l JOIN gpus g ON g.id = l.gpu_id JOIN clusters c ON c.id = l.cluster_id
    WHERE l.id >= @since AND g.model = @model AND c.kind = 'market' ORDER BY l.id DESC LIMIT @page
) recent;

-- name: Demand :one
-- The newest sample of a model in a region.
SELECT gpus, leased, at FROM market_history WHERE gpu_model = @gpu_model AND region = @region ORDER BY at DESC LIMIT 1;
