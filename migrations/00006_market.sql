-- +goose Up
-- The market's rules and kinds of booking, the fleet's health and plans, and a feed of what changed for placement.

INSERT INTO state_transitions (machine, from_state, to_state) VALUES
    ('bookings', 'quoted', 'bidding'), ('bookings', 'bidding', 'quoted'), ('bookings', 'bidding', 'expired'), ('bookings', 'bidding', 'cancelled'),
    ('bookings', 'quoted', 'scheduled'), ('bookings', 'quoted', 'cancelled'),
    ('bookings', 'scheduled', 'accepted'), ('bookings', 'scheduled', 'refused'), ('bookings', 'scheduled', 'cancelled'),
    ('clusters', 'ready', 'parked'), ('clusters', 'parked', 'joining'), ('clusters', 'parked', 'draining');

-- Hosts ------------------------------------------------------------------------

-- What placement asks of a host beside its GPUs; written when the inventory changes. NULL is unknown.
ALTER TABLE hosts
    ADD COLUMN number         bigint GENERATED ALWAYS AS IDENTITY UNIQUE, -- for exclusion constraints: ranges of numbers are built in
    ADD COLUMN runtime        text NOT NULL DEFAULT '' CHECK (length(runtime) <= 40), -- what its agent runs nodes with: 'process'
    ADD COLUMN cpus           integer CHECK (cpus >= 0),
    ADD COLUMN memory_bytes   bigint CHECK (memory_bytes >= 0),
    ADD COLUMN disk_free_bytes bigint CHECK (disk_free_bytes >= 0), -- in steps of 10 GiB, so that it seldom changes
    ADD COLUMN driver_major   integer CHECK (driver_major >= 0),
    ADD COLUMN images         text[] NOT NULL DEFAULT '{}',           -- Ray versions that its runtime can start
    ADD COLUMN rtt_us         integer CHECK (rtt_us >= 0),            -- round trip to the gateway, written when it changes by a quarter
    ADD COLUMN failing_gate   text NOT NULL DEFAULT '',               -- the first health gate that is not passed
    ADD COLUMN suspect_since  timestamptz,                            -- silent for longer than a beat, not yet lost
    ADD COLUMN lost_after_ms  integer NOT NULL DEFAULT 10000 CHECK (lost_after_ms > 0), -- follows the heartbeat interval it was given
    ADD COLUMN reliability_bps integer NOT NULL DEFAULT 0 CHECK (reliability_bps BETWEEN 0 AND 10000),
    ADD COLUMN trust_tier     smallint NOT NULL DEFAULT 0 CHECK (trust_tier BETWEEN 0 AND 2); -- new, proven, trusted

ALTER TABLE gpus ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY UNIQUE;

-- What a host must show to be offered; written on change only.
CREATE TABLE host_gates (
    host_id  uuid NOT NULL REFERENCES hosts,
    gate     text NOT NULL CHECK (gate IN ('xid', 'ecc', 'throttle', 'clock', 'disk', 'udp', 'gpu', 'driver')),
    state    text NOT NULL CHECK (state IN ('pass', 'fail', 'unknown')),
    measured text NOT NULL DEFAULT '', -- for people: "41 s fast"
    required text NOT NULL DEFAULT '', -- "within 5 s"
    fix      text NOT NULL DEFAULT '', -- what the owner can do
    since    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (host_id, gate)
);

-- Observed history, a row a host and UTC day: the reliability score is made of it.
CREATE TABLE host_days (
    host_id     uuid NOT NULL REFERENCES hosts,
    day         date NOT NULL,
    observed_ms bigint NOT NULL DEFAULT 0 CHECK (observed_ms >= 0),
    online_ms   bigint NOT NULL DEFAULT 0 CHECK (online_ms BETWEEN 0 AND observed_ms),
    delivered   integer NOT NULL DEFAULT 0, -- nodes that became part of a ready cluster
    failed      integer NOT NULL DEFAULT 0, -- nodes that failed on the owner's account
    PRIMARY KEY (host_id, day)
) WITH (fillfactor = 70);

CREATE TABLE maintenance_windows (
    id           uuid PRIMARY KEY,
    host_id      uuid NOT NULL REFERENCES hosts,
    host_number  bigint NOT NULL REFERENCES hosts (number),
    org_id       uuid NOT NULL REFERENCES organisations,
    starts_at    timestamptz NOT NULL,
    ends_at      timestamptz NOT NULL,
    note         text NOT NULL DEFAULT '' CHECK (length(note) <= 200),
    created_by   uuid REFERENCES users,
    created_at   timestamptz NOT NULL DEFAULT now(),
    announced_at timestamptz, -- when the customers with leases in it were told
    begun_at     timestamptz, -- when the host was set to draining for it
    ended_at     timestamptz, -- when it was opened again
    cancelled_at timestamptz,
    CHECK (ends_at > starts_at),
    CONSTRAINT maintenance_windows_apart EXCLUDE USING gist
        (int8range(host_number, host_number, '[]') WITH &&, tstzrange(starts_at, ends_at) WITH &&) WHERE (cancelled_at IS NULL)
);
CREATE INDEX maintenance_windows_by_host ON maintenance_windows (host_id, starts_at);
CREATE INDEX maintenance_windows_open ON maintenance_windows (starts_at) WHERE cancelled_at IS NULL AND ended_at IS NULL;
-- What hosts delivered and failed to, of which each day is counted again while it lasts.
CREATE INDEX nodes_delivered ON nodes (alive_at) WHERE role = 'gpu' AND alive_at IS NOT NULL;
CREATE INDEX leases_failed ON leases (closed_at) WHERE close_party = 'owner';

-- The market -------------------------------------------------------------------

-- An ask's price follows its rules; package pricing reads the document. The price never goes below the floor.
ALTER TABLE asks
    ADD COLUMN floor_per_gpu_hour bigint CHECK (floor_per_gpu_hour > 0),
    ADD COLUMN rules jsonb NOT NULL DEFAULT '{}',
    ADD CONSTRAINT asks_above_floor CHECK (floor_per_gpu_hour <= price_per_gpu_hour);

ALTER TABLE bookings
    DROP CONSTRAINT bookings_state_check,
    ADD CONSTRAINT bookings_state_check CHECK (state IN
        ('bidding', 'quoted', 'scheduled', 'accepted', 'expired', 'refused', 'cancelled')),
    ADD COLUMN kind text NOT NULL DEFAULT 'market' CHECK (kind IN ('market', 'auction', 'spot')),
    -- What accepting it does: a new cluster, more nodes for one, or more time for one.
    ADD COLUMN purpose text NOT NULL DEFAULT 'cluster' CHECK (purpose IN ('cluster', 'addition', 'extension')),
    ADD COLUMN target_cluster_id uuid REFERENCES clusters,
    ADD COLUMN requirements jsonb NOT NULL DEFAULT '{}', -- constraints beyond model, shape, regions and price
    ADD COLUMN starts_at timestamptz,                    -- scheduled; NULL: at once
    ADD COLUMN bids_close_at timestamptz,
    ADD COLUMN choose text NOT NULL DEFAULT 'cheapest' CHECK (choose IN ('cheapest', 'manual')),
    ADD COLUMN park_after_ms bigint CHECK (park_after_ms > 0),       -- auto-stop, see clusters
    ADD COLUMN release_after_ms bigint CHECK (release_after_ms > 0),
    ADD CONSTRAINT bookings_target CHECK ((purpose = 'cluster') = (target_cluster_id IS NULL)),
    ADD CONSTRAINT bookings_spot_limit CHECK (kind <> 'spot' OR max_price_per_gpu_hour IS NOT NULL),
    ADD CONSTRAINT bookings_bidding CHECK (state <> 'bidding' OR bids_close_at IS NOT NULL),
    ADD CONSTRAINT bookings_scheduled CHECK (state <> 'scheduled' OR starts_at IS NOT NULL);
CREATE INDEX bookings_bidding_open ON bookings (bids_close_at) WHERE state = 'bidding';
CREATE INDEX bookings_scheduled_next ON bookings (starts_at) WHERE state = 'scheduled';
CREATE INDEX bookings_by_target ON bookings (target_cluster_id) WHERE target_cluster_id IS NOT NULL;

-- Sealed: a customer sees them once the window has closed, an owner only its own.
CREATE TABLE bids (
    id         uuid PRIMARY KEY,
    booking_id uuid NOT NULL REFERENCES bookings,
    host_id    uuid NOT NULL REFERENCES hosts,
    org_id     uuid NOT NULL REFERENCES organisations, -- the owner
    price_per_gpu_hour bigint NOT NULL CHECK (price_per_gpu_hour > 0),
    state      text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'won', 'cancelled')),
    made_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (booking_id, host_id)
);
CREATE INDEX bids_by_owner ON bids (org_id, id);
CREATE INDEX bids_open ON bids (booking_id) WHERE state = 'open';

-- GPUs promised to bookings that have not started. No GPU is promised twice for one time.
CREATE TABLE reservations (
    booking_id  uuid NOT NULL REFERENCES bookings,
    gpu_id      uuid NOT NULL REFERENCES gpus,
    gpu_number  bigint NOT NULL REFERENCES gpus (number),
    host_id     uuid NOT NULL REFERENCES hosts,
    during      tstzrange NOT NULL CHECK (NOT isempty(during) AND NOT lower_inf(during) AND NOT upper_inf(during)),
    released_at timestamptz, -- leased, or given up
    PRIMARY KEY (booking_id, gpu_id),
    CONSTRAINT reservations_apart EXCLUDE USING gist
        (int8range(gpu_number, gpu_number, '[]') WITH &&, during WITH &&) WHERE (released_at IS NULL)
);
CREATE INDEX reservations_open_by_host ON reservations (host_id) WHERE released_at IS NULL;

-- Prices and use over time, a row a model, region and sample.
CREATE TABLE market_history (
    gpu_model    text NOT NULL,
    region       text NOT NULL,
    at           timestamptz NOT NULL,
    gpus         integer NOT NULL CHECK (gpus >= 0),     -- offered, leased ones included
    leased       integer NOT NULL CHECK (leased BETWEEN 0 AND gpus),
    price_min    bigint,                                 -- of free GPUs, per GPU-hour; NULL without one
    price_median bigint,
    PRIMARY KEY (gpu_model, region, at)
);
CREATE INDEX market_history_by_time ON market_history (at);

-- Clusters ---------------------------------------------------------------------

ALTER TABLE clusters
    DROP CONSTRAINT clusters_state_check,
    ADD CONSTRAINT clusters_state_check CHECK (state IN
        ('reserved', 'preparing', 'head_up', 'joining', 'ready', 'degraded', 'parked', 'draining', 'released', 'failed')),
    ADD COLUMN kind text NOT NULL DEFAULT 'market' CHECK (kind IN ('market', 'auction', 'spot')),
    ADD COLUMN runtime text NOT NULL DEFAULT '',               -- of all its hosts: 'process'
    ADD COLUMN places integer[] NOT NULL DEFAULT '{}',         -- ordinals that must have a GPU node
    ADD COLUMN joining_places integer[] NOT NULL DEFAULT '{}', -- of those, the ones added to a running cluster and not yet alive
    ADD COLUMN forecast_end timestamptz,                       -- when its GPUs are expected to be free
    ADD COLUMN preempt_at timestamptz,                         -- spot: when its GPUs go to a market booking
    ADD COLUMN park_after_ms bigint CHECK (park_after_ms > 0),       -- idle this long: the nodes are released, the head stays; NULL: never
    ADD COLUMN release_after_ms bigint CHECK (release_after_ms > 0), -- parked this long: the cluster is released; NULL: never
    ADD COLUMN active_at timestamptz,                          -- when a job, task or session was last seen
    ADD COLUMN resume_requested_at timestamptz,
    ADD COLUMN notices text[] NOT NULL DEFAULT '{}';           -- what has been announced once: 'ends_30m', 'balance', ...
UPDATE clusters SET places = ARRAY(SELECT generate_series(1, node_count)),
    forecast_end = coalesce(ended_at, created_at + duration_ms * interval '1 millisecond');
ALTER TABLE clusters ALTER COLUMN forecast_end SET NOT NULL,
    ADD CONSTRAINT clusters_places CHECK (cardinality(places) = node_count AND joining_places <@ places);

ALTER TABLE ray_summaries
    ADD COLUMN running_jobs integer, -- NULL: not known
    ADD COLUMN busy integer;         -- GPU nodes on which tasks or actors hold resources

-- A slot is a place on one machine, and no two nodes that a cluster ever had share one: its Ray may list an address for a while
-- after the node there has ended.
ALTER TABLE nodes
    ADD COLUMN machine_id text NOT NULL DEFAULT '',
    ADD COLUMN remove_requested_at timestamptz, -- the customer wants it out of the cluster
    ADD COLUMN stopping_at timestamptz,         -- when it was asked to stop
    ADD COLUMN drain_ms integer NOT NULL DEFAULT 0 CHECK (drain_ms >= 0); -- how long Ray may then move work off it
UPDATE nodes n SET machine_id = h.machine_id FROM hosts h WHERE h.id = n.host_id;
ALTER TABLE nodes ALTER COLUMN machine_id DROP DEFAULT;
DROP INDEX nodes_one_per_slot;
CREATE UNIQUE INDEX nodes_one_per_slot ON nodes (machine_id, slot) WHERE ended_at IS NULL;
CREATE INDEX nodes_slots_by_cluster ON nodes (cluster_id, slot);

-- Leases are the table that bookings write most. A lease's node says its cluster and host, and its GPU's host its owner; they are
-- written together, in one statement that reads them there, so that checking them again for each lease would only cost time. What
-- no other row vouches for stays checked: the node and the GPU.
ALTER TABLE leases DROP CONSTRAINT leases_cluster_id_fkey, DROP CONSTRAINT leases_host_id_fkey,
    DROP CONSTRAINT leases_customer_org_id_fkey, DROP CONSTRAINT leases_owner_org_id_fkey;

-- The feed of changes --------------------------------------------------------------

-- One row for each statement that changed what placement sees of some hosts. A reader asks for the rows of transactions that had
-- not ended at its last look: xid >= pg_snapshot_xmin of that look. Nothing is missed, whatever order transactions commit in.
CREATE TABLE fleet_changes (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid   xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    hosts uuid[] NOT NULL
);
CREATE INDEX fleet_changes_by_xid ON fleet_changes (xid);

-- +goose StatementBegin
CREATE FUNCTION fleet_changed_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'hosts' THEN
        INSERT INTO fleet_changes (hosts) VALUES (ARRAY[NEW.id]);
    ELSIF TG_OP = 'UPDATE' AND OLD.host_id <> NEW.host_id THEN
        INSERT INTO fleet_changes (hosts) VALUES (ARRAY[OLD.host_id, NEW.host_id]);
    ELSE
        INSERT INTO fleet_changes (hosts) VALUES (ARRAY[NEW.host_id]);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION fleet_changed_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fleet_changes (hosts) SELECT array_agg(DISTINCT host_id) FROM changed HAVING count(*) > 0;
    RETURN NULL;
END $$;

CREATE FUNCTION fleet_changed_leases() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fleet_changes (hosts) SELECT array_agg(DISTINCT host_id) FROM changed WHERE state = 'closed' HAVING count(*) > 0;
    RETURN NULL;
END $$;

CREATE FUNCTION fleet_changed_cluster() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fleet_changes (hosts)
    SELECT array_agg(DISTINCT host_id) FROM leases WHERE cluster_id = NEW.id AND state <> 'closed' HAVING count(*) > 0;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER hosts_fleet_insert AFTER INSERT ON hosts FOR EACH ROW EXECUTE FUNCTION fleet_changed_row();
-- Between idle and leased nothing changes for placement, which sees the leases themselves. Heartbeats write none of these columns.
CREATE TRIGGER hosts_fleet_update AFTER UPDATE OF state, connected, region, site, simulated, cpus, memory_bytes, disk_free_bytes,
    driver_major, images, rtt_us, failing_gate, reliability_bps, trust_tier, machine_id, runtime ON hosts FOR EACH ROW WHEN (
    (replace(OLD.state, 'leased', 'idle'), OLD.connected, OLD.runtime, OLD.region, OLD.site, OLD.simulated, OLD.cpus, OLD.memory_bytes,
        OLD.disk_free_bytes, OLD.driver_major, OLD.images, OLD.rtt_us, OLD.failing_gate, OLD.reliability_bps, OLD.trust_tier,
        OLD.machine_id) IS DISTINCT FROM
    (replace(NEW.state, 'leased', 'idle'), NEW.connected, NEW.runtime, NEW.region, NEW.site, NEW.simulated, NEW.cpus, NEW.memory_bytes,
        NEW.disk_free_bytes, NEW.driver_major, NEW.images, NEW.rtt_us, NEW.failing_gate, NEW.reliability_bps, NEW.trust_tier,
        NEW.machine_id))
    EXECUTE FUNCTION fleet_changed_row();
CREATE TRIGGER gpus_fleet_insert AFTER INSERT ON gpus FOR EACH ROW EXECUTE FUNCTION fleet_changed_row();
CREATE TRIGGER gpus_fleet_update AFTER UPDATE ON gpus FOR EACH ROW WHEN
    ((OLD.host_id, OLD.ordinal, OLD.model, OLD.memory_mib, OLD.compute_capability, OLD.healthy) IS DISTINCT FROM
     (NEW.host_id, NEW.ordinal, NEW.model, NEW.memory_mib, NEW.compute_capability, NEW.healthy))
    EXECUTE FUNCTION fleet_changed_row();
CREATE TRIGGER asks_fleet AFTER INSERT OR UPDATE ON asks FOR EACH ROW EXECUTE FUNCTION fleet_changed_row();
CREATE TRIGGER maintenance_fleet AFTER INSERT OR UPDATE ON maintenance_windows FOR EACH ROW EXECUTE FUNCTION fleet_changed_row();
CREATE TRIGGER leases_fleet_insert AFTER INSERT ON leases REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION fleet_changed_rows();
CREATE TRIGGER leases_fleet_update AFTER UPDATE ON leases REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION fleet_changed_leases();
CREATE TRIGGER reservations_fleet_insert AFTER INSERT ON reservations REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION fleet_changed_rows();
CREATE TRIGGER reservations_fleet_update AFTER UPDATE ON reservations REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION fleet_changed_rows();
CREATE TRIGGER clusters_fleet AFTER UPDATE ON clusters FOR EACH ROW
    WHEN (OLD.forecast_end IS DISTINCT FROM NEW.forecast_end OR OLD.preempt_at IS DISTINCT FROM NEW.preempt_at)
    EXECUTE FUNCTION fleet_changed_cluster();

-- +goose Down
DROP TRIGGER clusters_fleet ON clusters;
DROP TRIGGER leases_fleet_insert ON leases;
DROP TRIGGER leases_fleet_update ON leases;
DROP TRIGGER asks_fleet ON asks;
DROP TRIGGER gpus_fleet_insert ON gpus;
DROP TRIGGER gpus_fleet_update ON gpus;
DROP TRIGGER hosts_fleet_insert ON hosts;
DROP TRIGGER hosts_fleet_update ON hosts;
DROP TABLE fleet_changes, market_history, reservations, bids, maintenance_windows, host_days, host_gates;
DROP FUNCTION fleet_changed_row, fleet_changed_rows, fleet_changed_leases, fleet_changed_cluster;
ALTER TABLE leases ADD FOREIGN KEY (cluster_id) REFERENCES clusters, ADD FOREIGN KEY (host_id) REFERENCES hosts,
    ADD FOREIGN KEY (customer_org_id) REFERENCES organisations, ADD FOREIGN KEY (owner_org_id) REFERENCES organisations;
DROP INDEX nodes_slots_by_cluster, nodes_one_per_slot, nodes_delivered, leases_failed;
CREATE UNIQUE INDEX nodes_one_per_slot ON nodes (slot) WHERE ended_at IS NULL;
ALTER TABLE nodes DROP COLUMN machine_id, DROP COLUMN remove_requested_at, DROP COLUMN stopping_at, DROP COLUMN drain_ms;
ALTER TABLE ray_summaries DROP COLUMN running_jobs, DROP COLUMN busy;
ALTER TABLE clusters DROP CONSTRAINT clusters_places, DROP CONSTRAINT clusters_state_check,
    ADD CONSTRAINT clusters_state_check CHECK (state IN
        ('reserved', 'preparing', 'head_up', 'joining', 'ready', 'degraded', 'draining', 'released', 'failed')),
    DROP COLUMN kind, DROP COLUMN runtime, DROP COLUMN places, DROP COLUMN joining_places, DROP COLUMN forecast_end, DROP COLUMN preempt_at,
    DROP COLUMN park_after_ms, DROP COLUMN release_after_ms, DROP COLUMN active_at, DROP COLUMN resume_requested_at, DROP COLUMN notices;
DROP INDEX bookings_bidding_open, bookings_scheduled_next, bookings_by_target;
ALTER TABLE bookings DROP CONSTRAINT bookings_target, DROP CONSTRAINT bookings_spot_limit, DROP CONSTRAINT bookings_bidding,
    DROP CONSTRAINT bookings_scheduled, DROP CONSTRAINT bookings_state_check,
    ADD CONSTRAINT bookings_state_check CHECK (state IN ('quoted', 'accepted', 'expired', 'refused')),
    DROP COLUMN kind, DROP COLUMN purpose, DROP COLUMN target_cluster_id, DROP COLUMN requirements, DROP COLUMN starts_at,
    DROP COLUMN bids_close_at, DROP COLUMN choose, DROP COLUMN park_after_ms, DROP COLUMN release_after_ms;
ALTER TABLE asks DROP CONSTRAINT asks_above_floor, DROP COLUMN floor_per_gpu_hour, DROP COLUMN rules;
ALTER TABLE gpus DROP COLUMN number;
ALTER TABLE hosts DROP COLUMN number, DROP COLUMN runtime, DROP COLUMN cpus, DROP COLUMN memory_bytes, DROP COLUMN disk_free_bytes, DROP COLUMN driver_major,
    DROP COLUMN images, DROP COLUMN rtt_us, DROP COLUMN failing_gate, DROP COLUMN suspect_since, DROP COLUMN lost_after_ms,
    DROP COLUMN reliability_bps, DROP COLUMN trust_tier;
DELETE FROM state_transitions WHERE machine = 'bookings' AND (from_state IN ('bidding', 'scheduled') OR to_state IN ('scheduled', 'cancelled'));
DELETE FROM state_transitions WHERE machine = 'clusters' AND 'parked' IN (from_state, to_state);
