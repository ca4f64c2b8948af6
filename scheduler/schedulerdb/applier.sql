-- Deciding bookings ---------------------------------------------------------------

-- name: BeginBatch :one
-- Asserts the term, names the transaction, and has it prefer indexes: plans are kept, those of foreign keys too, and one that was
-- made while the tables were small would read all of a large one for every row.
SELECT assert_leader(@role, @term)::text AS asserted, set_config('enable_seqscan', 'off', true)::text AS seqscan,
       pg_current_xact_id() AS xid, clock_timestamp()::timestamptz AS now;

-- name: RequestedBookings :many
-- Bookings for the applier to decide, oldest first: all but the deferred ones.
SELECT * FROM bookings
WHERE state = 'quoted' AND requested_at IS NOT NULL AND NOT (id = ANY(@deferred::uuid[]))
ORDER BY requested_at
LIMIT @batch
FOR UPDATE SKIP LOCKED;

-- name: DueBookings :many
-- Scheduled bookings whose time has come, oldest first.
SELECT * FROM bookings
WHERE state = 'scheduled' AND starts_at <= clock_timestamp() AND NOT (id = ANY(@deferred::uuid[]))
ORDER BY starts_at
LIMIT @batch
FOR UPDATE SKIP LOCKED;

-- name: WaitingBooking :many
-- One of either kind, if it still waits.
SELECT * FROM bookings
WHERE id = @id AND (state = 'quoted' AND requested_at IS NOT NULL OR state = 'scheduled' AND starts_at <= clock_timestamp())
FOR UPDATE SKIP LOCKED;

-- name: ExpireOpenQuotes :execrows
UPDATE bookings SET state = 'expired', decided_at = now()
WHERE id IN (
    SELECT b.id FROM bookings b
    WHERE b.state = 'quoted' AND b.requested_at IS NULL AND b.expires_at <= now()
    ORDER BY b.expires_at LIMIT @batch FOR UPDATE SKIP LOCKED);

-- name: OpenReservations :many
-- What is still promised to a booking.
SELECT r.host_id, g.ordinal, g.model, lower(r.during)::timestamptz AS starts_at, upper(r.during)::timestamptz AS ends_at
FROM reservations r JOIN gpus g ON g.id = r.gpu_id
WHERE r.booking_id = @booking_id AND r.released_at IS NULL
ORDER BY r.host_id, g.ordinal;

-- name: SlotsInUse :many
-- A look into the index for each machine: joined, a plan would read the places of all.
SELECT n.machine_id, n.slot FROM unnest(@machines::text[]) AS m (id)
CROSS JOIN LATERAL (SELECT machine_id, slot FROM nodes WHERE machine_id = m.id AND ended_at IS NULL OFFSET 0) AS n;

-- Changing a running cluster ----------------------------------------------------------

-- name: LockTarget :one
-- The cluster of an addition or extension, locked until the transaction ends, but not against rows that refer to it.
SELECT * FROM clusters WHERE id = @id FOR NO KEY UPDATE;

-- name: NodesEver :many
-- All nodes that a cluster ever had.
SELECT host_id, ordinal, slot, (ended_at IS NULL)::boolean AS live FROM nodes WHERE cluster_id = @cluster_id;

-- name: LeasedPlaces :many
-- Which GPUs a cluster holds, and what they cost.
SELECT l.host_id, g.ordinal, g.model, l.price_per_gpu_hour FROM leases l JOIN gpus g ON g.id = l.gpu_id
WHERE l.cluster_id = @cluster_id AND l.state <> 'closed'
ORDER BY l.host_id, g.ordinal;

-- name: AddPlaces :exec
-- More nodes for a running cluster: it waits for them without degrading.
UPDATE clusters SET node_count = node_count + cardinality(@added::integer[]), places = places || @added::integer[],
    joining_places = joining_places || @added::integer[], hold_base_units = hold_base_units + @hold, version = version + 1
WHERE id = @id;

-- name: ExtendCluster :exec
UPDATE clusters SET duration_ms = duration_ms + @milliseconds, hold_base_units = hold_base_units + @hold,
    forecast_end = forecast_end + @longer::interval, version = version + 1
WHERE id = @id;

-- name: ExtendUsage :exec
-- The open intervals of a cluster may be billed for longer.
UPDATE usage u SET limit_at = u.limit_at + @longer::interval
FROM leases l WHERE l.id = u.lease_id AND l.cluster_id = @cluster_id AND u.ended_at IS NULL;

-- name: PreemptClusters :many
-- The spot clusters that hold some GPUs are to be gone at a time. They drain from then on.
UPDATE clusters c SET preempt_at = @at::timestamptz, forecast_end = least(c.forecast_end, @at::timestamptz), version = c.version + 1
WHERE c.kind = 'spot' AND c.preempt_at IS NULL AND c.id IN (
    SELECT l.cluster_id FROM leases l JOIN gpus g ON g.id = l.gpu_id JOIN reservations r ON r.gpu_id = g.id
    WHERE r.booking_id = @booking_id AND r.released_at IS NULL AND l.state <> 'closed')
RETURNING c.id, c.org_id;
