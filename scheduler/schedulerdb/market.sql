-- Quotes and bookings --------------------------------------------------------

-- name: InsertQuote :one
INSERT INTO bookings (id, org_id, created_by, kind, purpose, target_cluster_id, gpu_model, node_count, gpus_per_node, regions, duration_ms,
    max_price_per_gpu_hour, fee_bps, plan, requirements, hold_base_units, expires_at, cluster_name, starts_at, park_after_ms, release_after_ms)
VALUES (@id, @org_id, @created_by, @kind, @purpose, @target_cluster_id, @gpu_model, @node_count, @gpus_per_node, @regions, @duration_ms,
    sqlc.narg(max_price_per_gpu_hour), @fee_bps, @plan, @requirements, @hold_base_units, now() + @lifetime::interval, @cluster_name,
    sqlc.narg(starts_at), sqlc.narg(park_after_ms), sqlc.narg(release_after_ms))
RETURNING quoted_at, expires_at;

-- name: OpenAuction :exec
-- What has been inserted as a quote takes bids for a while instead, and is a quote for its lifetime after that.
UPDATE bookings SET state = 'bidding', choose = @choose, bids_close_at = quoted_at + @bid_window::interval,
    expires_at = expires_at + @later::interval
WHERE id = @id;

-- name: GetBooking :one
-- An extension or an addition shows the cluster that it changes, and has none of its own.
SELECT sqlc.embed(b), c.id AS cluster_id, clock_timestamp()::timestamptz AS read_at
FROM bookings b LEFT JOIN clusters c ON c.booking_id = b.id
WHERE b.id = @id AND b.org_id = @org_id;

-- name: ListBookings :many
-- What was accepted or is being bid for, or the bookings of one state, newest first.
SELECT sqlc.embed(b), c.id AS cluster_id, clock_timestamp()::timestamptz AS read_at
FROM bookings b LEFT JOIN clusters c ON c.booking_id = b.id
WHERE b.org_id = @org_id
  AND (CASE WHEN @any_state::boolean THEN b.requested_at IS NOT NULL OR b.kind = 'auction' ELSE b.state = @state END)
  AND (sqlc.narg(before)::uuid IS NULL OR b.id < sqlc.narg(before))
ORDER BY b.id DESC
LIMIT @page;

-- name: RequestBooking :exec
-- Accepts a quote that is still open, and wakes the applier; asking twice changes nothing.
WITH requested AS (
    UPDATE bookings SET requested_at = coalesce(requested_at, now()),
        cluster_name = CASE WHEN requested_at IS NULL AND @cluster_name::text <> '' THEN @cluster_name ELSE cluster_name END
    WHERE id = @id AND org_id = @org_id AND state = 'quoted' AND (requested_at IS NOT NULL OR expires_at > now())
    RETURNING id
)
SELECT pg_notify('muster_bookings', '') FROM requested;

-- name: LockBooking :one
SELECT sqlc.embed(b), clock_timestamp()::timestamptz AS now FROM bookings b WHERE b.id = @id AND b.org_id = @org_id FOR NO KEY UPDATE;

-- name: CancelBooking :exec
-- What it had reserved is free again. Spot clusters that were to make way for it, and for no other booking, go on until their end.
WITH released AS (
    UPDATE reservations SET released_at = now() WHERE booking_id = @id AND released_at IS NULL
    RETURNING gpu_id
), spared AS (
    UPDATE clusters c SET preempt_at = NULL, version = version + 1, forecast_end = greatest(c.forecast_end, (
        SELECT max(u.limit_at) FROM usage u JOIN leases l ON l.id = u.lease_id WHERE l.cluster_id = c.id AND u.ended_at IS NULL
    ))
    WHERE c.kind = 'spot' AND c.preempt_at > clock_timestamp() AND c.id IN (
        SELECT l.cluster_id FROM leases l JOIN released ON released.gpu_id = l.gpu_id WHERE l.state <> 'closed'
    ) AND NOT EXISTS (
        SELECT 1 FROM leases l JOIN reservations other ON other.gpu_id = l.gpu_id
        WHERE l.cluster_id = c.id AND l.state <> 'closed' AND other.released_at IS NULL AND other.booking_id <> @id
    )
)
UPDATE bookings b SET state = 'cancelled', decided_at = now() WHERE b.id = @id;

-- Additions and extensions ------------------------------------------------------

-- name: TargetCluster :one
-- A cluster that is to be changed, with what was booked for it.
SELECT sqlc.embed(c), sqlc.embed(b), clock_timestamp()::timestamptz AS now
FROM clusters c JOIN bookings b ON b.id = c.booking_id
WHERE c.id = @id AND c.org_id = @org_id;

-- name: TargetNodes :many
-- The GPU nodes of a cluster with what its GPUs cost, and until when nobody else has a right to them.
SELECT l.node_id, l.host_id, l.owner_org_id, h.region, h.site, h.simulated, l.price_per_gpu_hour,
       coalesce(least(min(lower(r.during)), min(m.starts_at)), @horizon::timestamptz)::timestamptz AS promised_at
FROM leases l
JOIN hosts h ON h.id = l.host_id
LEFT JOIN reservations r ON r.gpu_id = l.gpu_id AND r.released_at IS NULL AND upper(r.during) > now()
LEFT JOIN maintenance_windows m ON m.host_id = l.host_id AND m.cancelled_at IS NULL AND m.ended_at IS NULL AND m.ends_at > now()
WHERE l.cluster_id = @cluster_id AND l.state <> 'closed'
GROUP BY l.node_id, l.host_id, l.owner_org_id, h.region, h.site, h.simulated, l.price_per_gpu_hour
ORDER BY l.price_per_gpu_hour, l.host_id;

-- name: OpenNodeHosts :many
SELECT host_id FROM nodes WHERE cluster_id = @cluster_id AND role = 'gpu' AND ended_at IS NULL ORDER BY host_id;

-- Auctions ----------------------------------------------------------------------

-- name: OpenAuctions :many
-- Auctions that take bids, the first to close first; what of them is due by now is to be closed.
SELECT sqlc.embed(b), clock_timestamp()::timestamptz AS now,
       ARRAY(SELECT i.host_id FROM bids i WHERE i.booking_id = b.id)::uuid[] AS bidders
FROM bookings b
WHERE b.state = 'bidding'
ORDER BY b.bids_close_at
LIMIT @page;

-- name: BidTerms :many
-- What hosts bid by.
SELECT host_id, org_id, price_per_gpu_hour, coalesce(floor_per_gpu_hour, 0)::bigint AS floor, rules
FROM asks WHERE host_id = ANY(@hosts::uuid[]) AND active;

-- name: InsertBids :exec
INSERT INTO bids (id, booking_id, host_id, org_id, price_per_gpu_hour)
SELECT unnest(@ids::uuid[]), @booking_id, unnest(@hosts::uuid[]), unnest(@owners::uuid[]), unnest(@prices::bigint[])
ON CONFLICT (booking_id, host_id) DO NOTHING;

-- name: ListBids :many
SELECT i.id, i.host_id, i.org_id, i.price_per_gpu_hour, i.state, i.made_at, h.region, h.site, h.simulated
FROM bids i JOIN hosts h ON h.id = i.host_id
WHERE i.booking_id = @booking_id
ORDER BY i.price_per_gpu_hour, i.host_id;

-- name: QuoteAuction :exec
-- The bids have made a price. It is not accepted yet, so the lifetime begins now.
UPDATE bookings SET state = 'quoted', plan = @plan, requirements = @requirements, hold_base_units = @hold_base_units,
    expires_at = clock_timestamp() + @lifetime::interval
WHERE id = @id AND state = 'bidding';

-- name: ExpireAuction :exec
UPDATE bookings SET state = 'expired', decided_at = clock_timestamp() WHERE id = @id AND state = 'bidding';

-- name: ChoosePlan :exec
UPDATE bookings SET plan = @plan, requirements = @requirements, hold_base_units = @hold_base_units
WHERE id = @id AND state = 'quoted' AND requested_at IS NULL;

-- name: SettleBids :exec
-- Once a booking is decided so are its bids: the winners by name, and all others are cancelled.
UPDATE bids SET state = CASE WHEN id = ANY(@won::uuid[]) THEN 'won' ELSE 'cancelled' END
WHERE booking_id = @booking_id AND state = 'open';

-- name: DecidedAuctions :many
-- Auctions that are decided, and whose bids are not.
SELECT b.id, b.state, b.plan FROM bookings b
WHERE b.id IN (SELECT i.booking_id FROM bids i WHERE i.state = 'open') AND b.state NOT IN ('bidding', 'quoted')
LIMIT @page;

-- Asks ---------------------------------------------------------------------------

-- name: UpsertAsk :execrows
-- An owner's price; the host must be the owner's.
INSERT INTO asks (id, org_id, host_id, price_per_gpu_hour, floor_per_gpu_hour, rules, active)
SELECT @id, h.org_id, h.id, @price_per_gpu_hour, sqlc.narg(floor_per_gpu_hour), @rules, @active
FROM hosts h WHERE h.id = @host_id AND h.org_id = @org_id AND h.kind = 'gpu' AND h.state <> 'retired'
ON CONFLICT (host_id) DO UPDATE
SET price_per_gpu_hour = excluded.price_per_gpu_hour, floor_per_gpu_hour = excluded.floor_per_gpu_hour, rules = excluded.rules,
    active = excluded.active, updated_at = now();

-- name: AsksOf :many
-- With the model of most of each host's GPUs, which is whose use its rules follow.
SELECT sqlc.embed(a), h.region, coalesce(g.model, '')::text AS model, clock_timestamp()::timestamptz AS now
FROM asks a
JOIN hosts h ON h.id = a.host_id
LEFT JOIN LATERAL (
    SELECT gpus.model FROM gpus WHERE gpus.host_id = h.id GROUP BY gpus.model ORDER BY count(*) DESC, gpus.model LIMIT 1
) g ON true
WHERE a.org_id = @org_id;

-- name: AskingHost :one
-- A host that has or is to have an ask, with the model of most of its GPUs.
SELECT h.region, coalesce(g.model, '')::text AS model, coalesce(g.gpus, 0)::int AS gpus, clock_timestamp()::timestamptz AS now
FROM hosts h
LEFT JOIN LATERAL (
    SELECT gpus.model, count(*) AS gpus FROM gpus WHERE gpus.host_id = h.id GROUP BY gpus.model ORDER BY count(*) DESC, gpus.model LIMIT 1
) g ON true
WHERE h.id = @host_id AND h.org_id = @org_id AND h.kind = 'gpu' AND h.state <> 'retired';

-- History ------------------------------------------------------------------------

-- name: InsertSamples :exec
-- One sample a model, region and minute: a second in the same minute is dropped.
INSERT INTO market_history (gpu_model, region, at, gpus, leased, price_min, price_median)
SELECT unnest(@models::text[]), unnest(@regions::text[]), date_trunc('minute', now()), unnest(@gpus::int[]), unnest(@leased::int[]),
       nullif(unnest(@price_mins::bigint[]), 0), nullif(unnest(@price_medians::bigint[]), 0)
ON CONFLICT (gpu_model, region, at) DO NOTHING;

-- name: DropSamples :execrows
DELETE FROM market_history WHERE at < now() - @retention::interval;

-- name: ThinSamples :execrows
-- Of samples older than a while the first of each hour stays. It looks at the last days only: older ones have been thinned.
DELETE FROM market_history h
WHERE h.at < now() - @fine::interval AND h.at > now() - @horizon::interval
  AND EXISTS (SELECT FROM market_history e WHERE e.gpu_model = h.gpu_model AND e.region = h.region
              AND e.at >= date_trunc('hour', h.at) AND e.at < h.at);

-- name: MarketHistory :many
-- Means over each step, added up over the regions; the least price of any and the median of the regions' mean medians.
SELECT step.at::timestamptz AS at, sum(step.gpus)::bigint AS gpus, sum(step.leased)::bigint AS leased,
       coalesce(min(step.price_min), 0)::bigint AS price_min,
       coalesce(percentile_disc(0.5) WITHIN GROUP (ORDER BY step.price_median), 0)::bigint AS price_median
FROM (
    SELECT date_bin(@step::interval, h.at, @origin::timestamptz) AS at, h.region, round(avg(h.gpus)) AS gpus, round(avg(h.leased)) AS leased,
           min(h.price_min) AS price_min, round(avg(h.price_median)) AS price_median
    FROM market_history h
    WHERE h.gpu_model = @gpu_model AND (@any_region::boolean OR h.region = @region) AND h.at >= @since AND h.at < @until
    GROUP BY 1, h.region
) step
GROUP BY step.at
ORDER BY step.at;

-- name: Samples :many
-- As they were taken, oldest first.
SELECT at, gpus, leased, coalesce(price_min, 0)::bigint AS price_min
FROM market_history WHERE gpu_model = @gpu_model AND region = @region AND at >= @since
ORDER BY at;
