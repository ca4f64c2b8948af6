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
    certificate_pem, certificate_expires_at, agent_version)
VALUES (@id, @org_id, @kind, @name, @region, @site, @machine_id, @key_fingerprint, @certificate_request_hash,
    @certificate_pem, @certificate_expires_at, @agent_version);

-- name: KeyIsEnrolled :one
SELECT EXISTS (SELECT 1 FROM hosts WHERE key_fingerprint = @key_fingerprint);

-- name: HostStanding :one
-- What the authorizer decides on.
SELECT state, state_reason, key_fingerprint FROM hosts WHERE id = @id;

-- name: LockCertificate :one
SELECT state, key_fingerprint, certificate_generation, certificate_request_hash, certificate_pem
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
SELECT id, kind, state, state_reason, machine_id, simulated FROM hosts WHERE id = @id FOR UPDATE;

-- name: SetHostState :exec
UPDATE hosts SET state = @state, state_reason = @state_reason WHERE id = @id;

-- name: HasOpenWork :one
-- Whether a host counts as leased.
SELECT EXISTS (SELECT 1 FROM nodes WHERE host_id = @host_id AND ended_at IS NULL);

-- name: MarkConnected :exec
UPDATE hosts SET connected = true, last_seen_at = now(), agent_version = @agent_version, protocol_version = @protocol_version
WHERE id = @id;

-- name: MarkDisconnected :execrows
-- Connected means heard of lately, by any gateway: a stream that is replaced leaves no trace.
UPDATE hosts SET connected = false WHERE connected AND last_seen_at < now() - @lost_after::interval;

-- name: Confirm :exec
-- The heartbeats of one flush. The rows of hosts stay HOT updates: no column here is indexed.
UPDATE hosts h SET last_seen_at = now(), connected = true,
    applied_generation = greatest(h.applied_generation, least(beat.generation, h.desired_generation))
FROM (SELECT unnest(@hosts::uuid[]) AS id, unnest(@generations::bigint[]) AS generation) beat
WHERE h.id = beat.id AND h.state NOT IN ('lost', 'quarantined', 'retired');

-- name: ConfirmUsage :exec
-- Only for nodes that still run. A node never runs again once it has ended, so one that does has run since it was last confirmed,
-- also while its host was not heard.
UPDATE usage u SET confirmed_at = now()
FROM leases l JOIN nodes n ON n.id = l.node_id
WHERE u.host_id = ANY(@hosts::uuid[]) AND u.ended_at IS NULL AND l.id = u.lease_id AND n.state IN ('running', 'alive');

-- name: MarkLost :many
UPDATE hosts SET state = 'lost', connected = false,
    state_reason = CASE WHEN state = 'draining' THEN @draining_reason::text ELSE @reason::text END
WHERE state IN ('verifying', 'idle', 'leased', 'draining') AND last_seen_at < now() - @lost_after::interval
RETURNING id;

-- name: ConnectedHosts :many
-- What a gateway compares its streams with.
SELECT id, state, state_reason, desired_generation FROM hosts WHERE id = ANY(@hosts::uuid[]);

-- name: WakeScheduler :exec
SELECT pg_notify('muster_scheduler', '');

-- name: WakeGateway :exec
SELECT pg_notify('muster_host', id::text) FROM hosts WHERE id = @id;

-- name: BumpDesired :exec
-- Nodes of these hosts have ended, so that the desired state names them no longer.
WITH bumped AS (
    UPDATE hosts SET desired_generation = desired_generation + 1 WHERE id = ANY(@hosts::uuid[]) RETURNING id
)
SELECT pg_notify('muster_host', id::text) FROM bumped;

-- Inventory -------------------------------------------------------------------

-- name: InventoryHash :one
SELECT sha256 FROM host_inventories WHERE host_id = @host_id;

-- name: UpsertInventory :exec
INSERT INTO host_inventories (host_id, document, sha256) VALUES (@host_id, @document, @sha256)
ON CONFLICT (host_id) DO UPDATE SET document = excluded.document, sha256 = excluded.sha256, changed_at = now();

-- name: SetMeasured :exec
UPDATE hosts SET simulated = @simulated, machine_id = @machine_id WHERE id = @id;

-- name: LockGPUs :many
-- The GPUs of a host and those that it claims, wherever they are.
SELECT g.id, g.host_id, g.uuid, g.ordinal, g.model, g.product, g.memory_mib, g.healthy, h.state AS host_state, h.state_reason AS host_state_reason
FROM gpus g JOIN hosts h ON h.id = g.host_id
WHERE g.host_id = @host_id OR g.uuid = ANY(@uuids::text[])
ORDER BY g.id
FOR UPDATE OF g;

-- name: UpsertGPU :execrows
-- Writes nothing if another host has just inserted the same GPU: its row has an id that this plan does not know.
INSERT INTO gpus (id, host_id, uuid, ordinal, model, product, memory_mib, compute_capability, healthy, health_note)
VALUES (@id, @host_id, @uuid, @ordinal, @model, @product, @memory_mib, @compute_capability, @healthy, @health_note)
ON CONFLICT (uuid) DO UPDATE SET host_id = excluded.host_id, ordinal = excluded.ordinal, model = excluded.model,
    product = excluded.product, memory_mib = excluded.memory_mib, compute_capability = excluded.compute_capability,
    healthy = excluded.healthy, health_note = excluded.health_note
WHERE gpus.id = excluded.id;

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
INSERT INTO ray_summaries (cluster_id, observed_at, nodes) VALUES (@cluster_id, now(), @nodes)
ON CONFLICT (cluster_id) DO UPDATE SET observed_at = excluded.observed_at, nodes = excluded.nodes;

-- Desired state ---------------------------------------------------------------

-- name: DesiredNodes :many
-- What should run on a host, in one snapshot with its generation. A host without nodes gives one row with an absent node.
SELECT h.desired_generation, h.region,
       n.id AS node_id, n.cluster_id, coalesce(n.role, '')::text AS role, coalesce(n.slot, 0)::int AS slot,
       coalesce(n.state = 'stopping' OR c.state = 'draining', false)::boolean AS stop,
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
       h.agent_version, h.certificate_expires_at, h.desired_generation, h.applied_generation, coalesce(i.document, '{}')::jsonb AS inventory
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
SELECT id, state, state_reason FROM hosts WHERE id = @id AND org_id = @org_id FOR UPDATE;
