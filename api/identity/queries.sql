-- Sign-in ---------------------------------------------------------------------

-- name: InsertNonce :one
-- Whole seconds: the text form of a time in the message must have one spelling.
INSERT INTO siws_nonces (nonce_hash, browser_hash, address, issued_at, expires_at)
VALUES (@nonce_hash, @browser_hash, @address, date_trunc('second', now()), date_trunc('second', now()) + @lifetime::interval)
RETURNING issued_at, expires_at;

-- name: SpendNonce :one
UPDATE siws_nonces SET used_at = now()
WHERE nonce_hash = @nonce_hash AND browser_hash = @browser_hash AND address = @address AND used_at IS NULL AND expires_at > now()
RETURNING issued_at, expires_at;

-- name: InsertSession :one
INSERT INTO sessions (id, token_hash, user_id, expires_at)
VALUES (@id, @token_hash, @user_id, now() + @lifetime::interval)
RETURNING expires_at;

-- name: UseSession :one
-- The last use is written once a minute, not with every request.
WITH touched AS (
    UPDATE sessions SET last_used_at = now()
    WHERE token_hash = @token_hash AND revoked_at IS NULL AND expires_at > now()
      AND last_used_at > now() - @idle::interval AND last_used_at < now() - interval '1 minute'
)
SELECT s.id, s.user_id, extract(epoch FROM now() - s.signed_at)::double precision AS signed_ago_s, u.name, u.wallet_address
FROM sessions s JOIN users u ON u.id = s.user_id
WHERE s.token_hash = @token_hash AND s.revoked_at IS NULL AND s.expires_at > now() AND s.last_used_at > now() - @idle::interval;

-- name: SessionIsLive :one
SELECT EXISTS (
    SELECT 1 FROM sessions
    WHERE id = @id AND revoked_at IS NULL AND expires_at > now() AND last_used_at > now() - @idle::interval
);

-- name: RevokeSession :exec
UPDATE sessions SET revoked_at = coalesce(revoked_at, now()) WHERE id = @id;

-- People and organisations ----------------------------------------------------

-- name: UpsertUser :one
-- An empty name leaves the old one.
INSERT INTO users (id, wallet_address, name) VALUES (@id, @wallet_address, @name)
ON CONFLICT (wallet_address) DO UPDATE SET name = CASE WHEN EXCLUDED.name = '' THEN users.name ELSE EXCLUDED.name END
RETURNING id, name;

-- name: LockUser :one
SELECT id FROM users WHERE id = @id FOR UPDATE;

-- name: InsertOrganisation :exec
INSERT INTO organisations (id, name, platform, payout_address) VALUES (@id, @name, @platform, @payout_address);

-- name: LockOrganisation :one
SELECT id, platform FROM organisations WHERE id = @id FOR UPDATE;

-- name: LockSeeds :exec
SELECT pg_advisory_xact_lock(7283002);

-- name: FindOrganisation :one
SELECT id FROM organisations
WHERE CASE WHEN @platform::boolean THEN platform ELSE NOT platform AND name = @name END
ORDER BY id LIMIT 1;

-- name: UpdateOrganisation :exec
UPDATE organisations SET name = @name, payout_address = coalesce(sqlc.narg(payout_address), payout_address) WHERE id = @id;

-- name: SetPayoutAddress :exec
UPDATE organisations SET payout_address = @payout_address WHERE id = @id;

-- name: Memberships :many
SELECT o.id AS org_id, o.name, o.platform, o.payout_address, m.roles
FROM memberships m JOIN organisations o ON o.id = m.org_id
WHERE m.user_id = @user_id
ORDER BY m.created_at, o.id
LIMIT @most;

-- name: PutMembership :exec
INSERT INTO memberships (org_id, user_id, roles) VALUES (@org_id, @user_id, @roles)
ON CONFLICT (org_id, user_id) DO UPDATE SET roles = EXCLUDED.roles;

-- name: DeleteMembership :exec
DELETE FROM memberships WHERE org_id = @org_id AND user_id = @user_id;

-- name: Members :many
SELECT u.id, u.name, u.wallet_address, m.roles, m.created_at
FROM memberships m JOIN users u ON u.id = m.user_id
WHERE m.org_id = @org_id AND (sqlc.narg(before)::uuid IS NULL OR u.id < sqlc.narg(before)::uuid)
ORDER BY u.id DESC LIMIT @page;

-- name: CountMembers :one
SELECT count(*) AS members, count(*) FILTER (WHERE 'admin' = ANY (roles)) AS admins FROM memberships WHERE org_id = @org_id;

-- API keys --------------------------------------------------------------------

-- name: InsertKey :one
INSERT INTO api_keys (id, org_id, user_id, name, secret_hash, hint, scopes, expires_at)
VALUES (@id, @org_id, @user_id, @name, @secret_hash, @hint, @scopes, now() + @lifetime::interval)
RETURNING created_at, expires_at;

-- name: CountLiveKeys :one
SELECT count(*) FROM api_keys WHERE org_id = @org_id AND user_id = @user_id AND revoked_at IS NULL AND expires_at > now();

-- name: Keys :many
SELECT id, name, hint, scopes, created_at, expires_at, last_used_at FROM api_keys
WHERE org_id = @org_id AND user_id = @user_id AND revoked_at IS NULL
  AND (sqlc.narg(before)::uuid IS NULL OR id < sqlc.narg(before)::uuid)
ORDER BY id DESC LIMIT @page;

-- name: RevokeKey :one
UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = @id AND org_id = @org_id AND user_id = @user_id RETURNING id;

-- name: UseKey :one
WITH touched AS (
    UPDATE api_keys SET last_used_at = now()
    WHERE secret_hash = @secret_hash AND revoked_at IS NULL AND expires_at > now()
      AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
)
SELECT k.id, k.org_id, k.user_id, k.scopes, k.secret_hash, u.name, u.wallet_address
FROM api_keys k JOIN users u ON u.id = k.user_id
WHERE k.secret_hash = @secret_hash AND k.revoked_at IS NULL AND k.expires_at > now();

-- name: KeyIsLive :one
SELECT EXISTS (SELECT 1 FROM api_keys WHERE id = @id AND revoked_at IS NULL AND expires_at > now());

-- name: PurgeIdentity :exec
-- What has ended long ago proves nothing to anybody.
WITH nonces AS (DELETE FROM siws_nonces WHERE expires_at < now() - interval '1 day')
DELETE FROM sessions WHERE expires_at < now() - interval '30 days';

-- Idempotency -----------------------------------------------------------------

-- name: ReserveIdempotencyKey :execrows
-- A reservation whose request neither finished nor failed within the bound belonged to a process that died.
INSERT INTO idempotency_keys (org_id, key, operation, request_hash) VALUES (@org_id, @key, @operation, @request_hash)
ON CONFLICT (org_id, key) DO UPDATE SET created_at = now()
WHERE idempotency_keys.response IS NULL AND idempotency_keys.operation = EXCLUDED.operation
  AND idempotency_keys.request_hash = EXCLUDED.request_hash AND idempotency_keys.created_at < now() - @abandoned::interval;

-- name: IdempotencyKey :one
SELECT operation, request_hash, response FROM idempotency_keys WHERE org_id = @org_id AND key = @key;

-- name: CompleteIdempotencyKey :exec
UPDATE idempotency_keys SET response = @response WHERE org_id = @org_id AND key = @key AND response IS NULL;

-- name: ForgetIdempotencyKey :exec
DELETE FROM idempotency_keys WHERE org_id = @org_id AND key = @key AND response IS NULL;

-- name: PurgeIdempotencyKeys :exec
DELETE FROM idempotency_keys WHERE created_at < now() - @lifetime::interval AND NOT operation = ANY (@kept::text[]);

-- name: UserNames :many
SELECT id, name, wallet_address FROM users WHERE id = ANY (@ids::uuid[]);
