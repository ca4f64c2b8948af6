-- +goose Up
-- Fleet, market and clusters. The state machines are drawn in ARCHITECTURE.md.

-- Who leads. A leader's every write checks its term here (assert_leader), so that one which lost the lead cannot write.
CREATE TABLE leadership (
    role       text PRIMARY KEY,
    holder     text NOT NULL,
    term       bigint NOT NULL,
    expires_at timestamptz NOT NULL
);

-- assert_leader locks the row against a takeover until the caller's transaction ends, and fails if the term has passed. The
-- weakest of row locks does: a takeover takes the strongest, and a renewal need not wait.
-- +goose StatementBegin
CREATE FUNCTION assert_leader(wanted_role text, wanted_term bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM leadership
    WHERE role = wanted_role AND term = wanted_term AND expires_at > clock_timestamp()
    FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'term % of % has passed', wanted_term, wanted_role
            USING ERRCODE = 'object_not_in_prerequisite_state', CONSTRAINT = 'leadership_term';
    END IF;
END $$;
-- +goose StatementEnd

INSERT INTO state_transitions (machine, from_state, to_state) VALUES
    ('hosts', 'enrolled', 'verifying'), ('hosts', 'verifying', 'idle'), ('hosts', 'idle', 'leased'), ('hosts', 'leased', 'idle'),
    ('hosts', 'idle', 'verifying'),
    ('hosts', 'enrolled', 'lost'), ('hosts', 'verifying', 'lost'), ('hosts', 'idle', 'lost'), ('hosts', 'leased', 'lost'),
    ('hosts', 'draining', 'lost'), ('hosts', 'lost', 'verifying'),
    ('hosts', 'idle', 'draining'), ('hosts', 'leased', 'draining'), ('hosts', 'draining', 'idle'),
    ('hosts', 'enrolled', 'quarantined'), ('hosts', 'verifying', 'quarantined'), ('hosts', 'idle', 'quarantined'),
    ('hosts', 'leased', 'quarantined'), ('hosts', 'draining', 'quarantined'), ('hosts', 'lost', 'quarantined'),
    ('hosts', 'quarantined', 'verifying'),
    ('hosts', 'enrolled', 'retired'), ('hosts', 'verifying', 'retired'), ('hosts', 'idle', 'retired'), ('hosts', 'draining', 'retired'),
    ('hosts', 'lost', 'retired'), ('hosts', 'quarantined', 'retired'),
    ('bookings', 'quoted', 'accepted'), ('bookings', 'quoted', 'expired'), ('bookings', 'quoted', 'refused'),
    ('clusters', 'reserved', 'preparing'), ('clusters', 'preparing', 'head_up'), ('clusters', 'head_up', 'joining'),
    ('clusters', 'joining', 'ready'), ('clusters', 'ready', 'degraded'), ('clusters', 'degraded', 'ready'),
    ('clusters', 'reserved', 'draining'), ('clusters', 'preparing', 'draining'), ('clusters', 'head_up', 'draining'),
    ('clusters', 'joining', 'draining'), ('clusters', 'ready', 'draining'), ('clusters', 'degraded', 'draining'),
    ('clusters', 'draining', 'released'), ('clusters', 'draining', 'failed'),
    ('nodes', 'planned', 'starting'), ('nodes', 'starting', 'running'), ('nodes', 'running', 'alive'), ('nodes', 'alive', 'running'),
    ('nodes', 'planned', 'stopping'), ('nodes', 'starting', 'stopping'), ('nodes', 'running', 'stopping'), ('nodes', 'alive', 'stopping'),
    ('nodes', 'planned', 'failed'), ('nodes', 'starting', 'failed'), ('nodes', 'running', 'failed'), ('nodes', 'alive', 'failed'),
    ('nodes', 'stopping', 'stopped'), ('nodes', 'stopping', 'failed'),
    ('leases', 'held', 'billing'), ('leases', 'held', 'closed'), ('leases', 'billing', 'held'), ('leases', 'billing', 'closed');

CREATE TABLE hosts (
    id                 uuid PRIMARY KEY,
    org_id             uuid NOT NULL REFERENCES organisations,
    kind               text NOT NULL CHECK (kind IN ('gpu', 'head')), -- head: an operator's machine that runs Ray heads
    name               text NOT NULL CHECK (length(name) BETWEEN 1 AND 80),
    state              text NOT NULL DEFAULT 'enrolled' CHECK (state IN
                           ('enrolled', 'verifying', 'idle', 'leased', 'draining', 'quarantined', 'lost', 'retired')),
    state_reason       text NOT NULL DEFAULT '',
    region             text NOT NULL CHECK (length(region) BETWEEN 1 AND 40),
    site               text NOT NULL DEFAULT '',
    machine_id         text NOT NULL,
    key_fingerprint    bytea NOT NULL UNIQUE,   -- SHA-256 of the public key: one key is one host
    certificate_generation bigint NOT NULL DEFAULT 1,
    certificate_request_hash bytea NOT NULL,    -- of the request that this generation answered: a lost reply is answered again
    certificate_pem    text NOT NULL,
    certificate_expires_at timestamptz NOT NULL,
    agent_version      text NOT NULL DEFAULT '',
    protocol_version   integer NOT NULL DEFAULT 0,
    simulated          boolean NOT NULL DEFAULT false,
    desired_generation bigint NOT NULL DEFAULT 1, -- bumped with every change of what should run on the host
    applied_generation bigint NOT NULL DEFAULT 0,
    connected          boolean NOT NULL DEFAULT false,
    last_seen_at       timestamptz,             -- never indexed: written every heartbeat, it must stay a HOT update
    enrolled_at        timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);
CREATE INDEX hosts_by_org ON hosts (org_id);
CREATE TRIGGER hosts_transition BEFORE UPDATE OF state ON hosts FOR EACH ROW EXECUTE FUNCTION check_transition();

CREATE TABLE host_inventories (
    host_id    uuid PRIMARY KEY REFERENCES hosts,
    document   jsonb NOT NULL, -- the agent's Inventory message, as protojson
    sha256     bytea NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE gpus (
    id          uuid PRIMARY KEY,
    host_id     uuid NOT NULL REFERENCES hosts,
    uuid        text NOT NULL UNIQUE, -- NVML's: the same GPU under two hosts is refused
    ordinal     integer NOT NULL CHECK (ordinal >= 0),
    model       text NOT NULL,        -- market name: 'H100'
    product     text NOT NULL,        -- NVML's name: 'NVIDIA H100 80GB HBM3'
    memory_mib  bigint NOT NULL CHECK (memory_mib > 0),
    compute_capability text NOT NULL DEFAULT '',
    healthy     boolean NOT NULL DEFAULT true,
    health_note text NOT NULL DEFAULT '',
    UNIQUE (host_id, ordinal) DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE join_tokens (
    id         uuid PRIMARY KEY,
    org_id     uuid NOT NULL REFERENCES organisations,
    token_hash bytea NOT NULL UNIQUE,
    host_kind  text NOT NULL CHECK (host_kind IN ('gpu', 'head')),
    region     text NOT NULL,
    site       text NOT NULL DEFAULT '',
    created_by uuid REFERENCES users,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    used_at    timestamptz,
    host_id    uuid REFERENCES hosts,
    CHECK ((used_at IS NULL) = (host_id IS NULL))
);
CREATE INDEX join_tokens_by_org ON join_tokens (org_id);

-- An owner's price for the GPUs of one host.
CREATE TABLE asks (
    id                 uuid PRIMARY KEY,
    org_id             uuid NOT NULL REFERENCES organisations,
    host_id            uuid NOT NULL UNIQUE REFERENCES hosts,
    price_per_gpu_hour bigint NOT NULL CHECK (price_per_gpu_hour > 0),
    active             boolean NOT NULL DEFAULT true,
    updated_at         timestamptz NOT NULL DEFAULT now()
);

-- A quote, and once accepted the booking. quoted -> accepted | expired | refused.
CREATE TABLE bookings (
    id              uuid PRIMARY KEY,
    org_id          uuid NOT NULL REFERENCES organisations,
    created_by      uuid REFERENCES users,
    state           text NOT NULL DEFAULT 'quoted' CHECK (state IN ('quoted', 'accepted', 'expired', 'refused')),
    gpu_model       text NOT NULL,
    node_count      integer NOT NULL CHECK (node_count BETWEEN 1 AND 512),
    gpus_per_node   integer NOT NULL CHECK (gpus_per_node BETWEEN 1 AND 16),
    regions         text[] NOT NULL DEFAULT '{}',  -- empty: any
    duration_ms     bigint NOT NULL CHECK (duration_ms > 0),
    max_price_per_gpu_hour bigint CHECK (max_price_per_gpu_hour > 0), -- the customer's own limit
    fee_bps         integer NOT NULL CHECK (fee_bps BETWEEN 0 AND 10000),
    plan            jsonb NOT NULL,                -- the quoted hosts and prices
    hold_base_units bigint NOT NULL CHECK (hold_base_units > 0), -- the most that the booking can cost
    quoted_at       timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL,
    cluster_name    text NOT NULL DEFAULT '' CHECK (length(cluster_name) <= 80),
    requested_at    timestamptz,                   -- when the customer accepted the quote; the applier decides
    decided_at      timestamptz,
    refusal_code    text,
    refusal         text,
    refusal_details jsonb,
    CHECK ((state = 'refused') = (refusal_code IS NOT NULL)),
    CHECK (state <> 'accepted' OR requested_at IS NOT NULL)
);
CREATE INDEX bookings_by_org ON bookings (org_id, id);
CREATE INDEX bookings_open ON bookings (expires_at) WHERE state = 'quoted' AND requested_at IS NULL;
CREATE INDEX bookings_waiting ON bookings (requested_at) WHERE state = 'quoted' AND requested_at IS NOT NULL;
CREATE TRIGGER bookings_transition BEFORE UPDATE OF state ON bookings FOR EACH ROW EXECUTE FUNCTION check_transition();

CREATE TABLE clusters (
    id              uuid PRIMARY KEY,
    org_id          uuid NOT NULL REFERENCES organisations,
    booking_id      uuid NOT NULL UNIQUE REFERENCES bookings,
    created_by      uuid REFERENCES users,
    name            text NOT NULL CHECK (length(name) BETWEEN 1 AND 80),
    state           text NOT NULL DEFAULT 'reserved' CHECK (state IN
                        ('reserved', 'preparing', 'head_up', 'joining', 'ready', 'degraded', 'draining', 'released', 'failed')),
    version         bigint NOT NULL DEFAULT 1,   -- bumped with every change that a viewer sees
    gpu_model       text NOT NULL,
    node_count      integer NOT NULL,
    gpus_per_node   integer NOT NULL,
    duration_ms     bigint NOT NULL,
    hold_base_units bigint NOT NULL,
    fee_bps         integer NOT NULL,
    ray_version     text NOT NULL,
    ray_token_sealed bytea NOT NULL,             -- Ray's own token, sealed with the control plane's key
    replacements    integer NOT NULL DEFAULT 0,
    fault_party     text CHECK (fault_party IN ('customer', 'owner', 'platform', 'funds', 'preempted')),
    end_reason      text NOT NULL DEFAULT '',
    release_requested_at timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    phase_at        timestamptz NOT NULL DEFAULT now(), -- when the present state was entered: deadlines count from here
    ready_at        timestamptz,                 -- the first time
    ended_at        timestamptz,                 -- released or failed
    settled_at      timestamptz,                 -- settlement has charged all usage and returned the rest of the hold
    CHECK ((state IN ('released', 'failed')) = (ended_at IS NOT NULL)),
    CHECK (state NOT IN ('draining', 'released', 'failed') OR fault_party IS NOT NULL),
    CHECK (settled_at IS NULL OR ended_at IS NOT NULL)
);
CREATE INDEX clusters_by_org ON clusters (org_id, id);
CREATE INDEX clusters_live ON clusters (id) WHERE state NOT IN ('released', 'failed');
CREATE INDEX clusters_unsettled ON clusters (id) WHERE ended_at IS NOT NULL AND settled_at IS NULL;
CREATE TRIGGER clusters_transition BEFORE UPDATE OF state ON clusters FOR EACH ROW EXECUTE FUNCTION check_transition();

-- The timeline. seq orders all of them, so that a stream resumes after the last one seen.
CREATE TABLE cluster_events (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster_id  uuid NOT NULL REFERENCES clusters,
    org_id      uuid NOT NULL REFERENCES organisations,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind        text NOT NULL,   -- 'state', 'node', 'receipt', 'release', 'credit'
    state       text,            -- the cluster's state after it, for kind 'state'
    node_id     uuid,
    message     text NOT NULL,   -- a sentence for people
    fault_party text
);
CREATE INDEX cluster_events_by_cluster ON cluster_events (cluster_id, seq);
CREATE INDEX cluster_events_by_org ON cluster_events (org_id, seq);

CREATE TABLE nodes (
    id          uuid PRIMARY KEY,
    cluster_id  uuid NOT NULL REFERENCES clusters,
    host_id     uuid NOT NULL REFERENCES hosts,
    role        text NOT NULL CHECK (role IN ('head', 'gpu')),
    ordinal     integer NOT NULL, -- place in the cluster; a replacement takes its predecessor's
    state       text NOT NULL DEFAULT 'planned' CHECK (state IN
                    ('planned', 'starting', 'running', 'alive', 'stopping', 'stopped', 'failed')),
    reason      text NOT NULL DEFAULT '',
    -- The process runtime's place on its machine: the address 127.77.x.y and a range of ports are derived from it.
    slot        integer NOT NULL CHECK (slot BETWEEN 0 AND 219),
    gpus        integer NOT NULL CHECK (gpus >= 0),
    created_at  timestamptz NOT NULL DEFAULT now(),
    alive_at    timestamptz,
    ended_at    timestamptz,
    CHECK ((state IN ('stopped', 'failed')) = (ended_at IS NOT NULL))
);
CREATE INDEX nodes_by_cluster ON nodes (cluster_id);
CREATE INDEX nodes_live_by_host ON nodes (host_id) WHERE ended_at IS NULL;
CREATE UNIQUE INDEX nodes_one_per_place ON nodes (cluster_id, role, ordinal) WHERE ended_at IS NULL;
CREATE UNIQUE INDEX nodes_one_per_slot ON nodes (slot) WHERE ended_at IS NULL;
CREATE TRIGGER nodes_transition BEFORE UPDATE OF state ON nodes FOR EACH ROW EXECUTE FUNCTION check_transition();

-- What Ray's head says of its nodes, as the head host's agent read it.
CREATE TABLE ray_summaries (
    cluster_id  uuid PRIMARY KEY REFERENCES clusters,
    observed_at timestamptz NOT NULL,
    nodes       jsonb NOT NULL -- [{"address": "127.77.0.3", "alive": true, "gpus": 2}]
);

CREATE TABLE leases (
    id                 uuid PRIMARY KEY,
    cluster_id         uuid NOT NULL REFERENCES clusters,
    node_id            uuid NOT NULL REFERENCES nodes,
    host_id            uuid NOT NULL REFERENCES hosts,
    gpu_id             uuid NOT NULL REFERENCES gpus,
    customer_org_id    uuid NOT NULL REFERENCES organisations,
    owner_org_id       uuid NOT NULL REFERENCES organisations,
    state              text NOT NULL DEFAULT 'held' CHECK (state IN ('held', 'billing', 'closed')),
    price_per_gpu_hour bigint NOT NULL CHECK (price_per_gpu_hour > 0), -- frozen
    fee_bps            integer NOT NULL CHECK (fee_bps BETWEEN 0 AND 10000), -- frozen
    opened_at          timestamptz NOT NULL DEFAULT now(),
    closed_at          timestamptz,
    close_party        text,
    close_reason       text,
    CHECK ((state = 'closed') = (closed_at IS NOT NULL))
);
CREATE UNIQUE INDEX leases_one_open_per_gpu ON leases (gpu_id) WHERE state <> 'closed';
CREATE INDEX leases_by_cluster ON leases (cluster_id);
CREATE INDEX leases_by_owner ON leases (owner_org_id, id);
CREATE TRIGGER leases_transition BEFORE UPDATE OF state ON leases FOR EACH ROW EXECUTE FUNCTION check_transition();

-- The billable intervals of a lease: written by the scheduler, read by settlement. confirmed_at moves with the host's
-- heartbeats, and only confirmed time is ever charged. limit_at is where the booked time ends.
CREATE TABLE usage (
    id           uuid PRIMARY KEY,
    lease_id     uuid NOT NULL REFERENCES leases,
    host_id      uuid NOT NULL REFERENCES hosts,
    started_at   timestamptz NOT NULL,
    confirmed_at timestamptz NOT NULL,
    limit_at     timestamptz NOT NULL,
    ended_at     timestamptz,
    CHECK (confirmed_at BETWEEN started_at AND limit_at),
    CHECK (ended_at IS NULL OR ended_at = confirmed_at)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX usage_one_open_per_lease ON usage (lease_id) WHERE ended_at IS NULL;
CREATE INDEX usage_by_lease ON usage (lease_id);
CREATE INDEX usage_open_by_host ON usage (host_id) WHERE ended_at IS NULL;

-- Confirmed time only grows, stops at the limit, and ends where the interval ends: a late or repeated heartbeat cannot do harm,
-- and what has been charged stays charged.
-- +goose StatementBegin
CREATE FUNCTION clamp_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.confirmed_at := GREATEST(OLD.confirmed_at, LEAST(NEW.confirmed_at, OLD.limit_at));
    IF OLD.ended_at IS NOT NULL THEN
        NEW.confirmed_at := OLD.confirmed_at;
        NEW.ended_at := OLD.ended_at;
    ELSIF NEW.ended_at IS NOT NULL THEN
        NEW.ended_at := NEW.confirmed_at;
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER usage_clamp BEFORE UPDATE ON usage FOR EACH ROW EXECUTE FUNCTION clamp_usage();

-- What was delivered, compared with what was booked, when a cluster became ready.
CREATE TABLE delivery_receipts (
    cluster_id uuid NOT NULL REFERENCES clusters,
    made_at    timestamptz NOT NULL DEFAULT now(),
    document   text NOT NULL, -- canonical JSON, the bytes that were hashed
    sha256     bytea NOT NULL,
    PRIMARY KEY (cluster_id, made_at)
);

-- Credentials of ours for one cluster's Ray API ('token') and dashboard ('ticket', spent once; 'dashboard', the session it buys).
CREATE TABLE ray_accesses (
    id          uuid PRIMARY KEY,
    cluster_id  uuid NOT NULL REFERENCES clusters,
    user_id     uuid REFERENCES users,
    kind        text NOT NULL CHECK (kind IN ('token', 'ticket', 'dashboard')),
    secret_hash bytea NOT NULL UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    used_at     timestamptz
);
CREATE INDEX ray_accesses_by_expiry ON ray_accesses (expires_at);

-- +goose Down
DROP TABLE ray_accesses, delivery_receipts, usage, leases, ray_summaries, nodes, cluster_events, clusters, bookings, asks,
    join_tokens, gpus, host_inventories, hosts;
DROP FUNCTION assert_leader, clamp_usage;
DROP TABLE leadership;
DELETE FROM state_transitions WHERE machine IN ('hosts', 'bookings', 'clusters', 'nodes', 'leases');
