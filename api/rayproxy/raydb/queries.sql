-- name: Target :one
-- A cluster with its live head, as an organisation sees it.
SELECT c.id, c.ray_token_sealed, c.runtime, n.id AS node_id, n.host_id, n.slot
FROM clusters c
JOIN nodes n ON n.cluster_id = c.id AND n.role = 'head' AND n.ended_at IS NULL
WHERE c.id = @id AND c.org_id = @org_id AND c.ended_at IS NULL;

-- name: ClusterState :one
SELECT state FROM clusters WHERE id = @id AND org_id = @org_id;

-- name: TargetByAccess :one
-- The same, for whoever holds a good credential of ours for the cluster and may still use it.
SELECT c.id, a.user_id, c.ray_token_sealed, n.id AS node_id, n.host_id, n.slot
FROM ray_accesses a
JOIN clusters c ON c.id = a.cluster_id AND c.ended_at IS NULL
JOIN nodes n ON n.cluster_id = c.id AND n.role = 'head' AND n.ended_at IS NULL
JOIN memberships m ON m.org_id = c.org_id AND m.user_id = a.user_id AND m.roles && ARRAY['engineer', 'admin']
WHERE a.secret_hash = @secret_hash AND a.kind = @kind AND a.cluster_id = @cluster_id AND a.expires_at > now();

-- name: StillAllowed :one
-- Whether a stream that was let through may go on: its credential may expire meanwhile, its user's right and its cluster may not.
SELECT EXISTS (
    SELECT FROM clusters c
    JOIN memberships m ON m.org_id = c.org_id AND m.user_id = @user_id AND m.roles && ARRAY['engineer', 'admin']
    WHERE c.id = @cluster_id AND c.ended_at IS NULL
);

-- name: InsertAccess :one
INSERT INTO ray_accesses (id, cluster_id, user_id, kind, secret_hash, expires_at)
VALUES (@id, @cluster_id, @user_id, @kind, @secret_hash, now() + @lifetime::interval)
RETURNING expires_at;

-- name: SpendTicket :one
-- A ticket buys one session; a second spender gets nothing.
UPDATE ray_accesses SET used_at = now()
WHERE secret_hash = @secret_hash AND kind = 'ticket' AND cluster_id = @cluster_id AND used_at IS NULL AND expires_at > now()
RETURNING user_id;

-- name: PurgeAccesses :exec
DELETE FROM ray_accesses WHERE expires_at < now() - interval '1 day';
