-- +goose Up
-- Identity: organisations, users and how they prove who they are. Secrets are stored as SHA-256 only.

-- Which state may follow which, for every state machine of the schema. One trigger enforces all of them, so that no code path
-- can make a cluster or a batch jump.
CREATE TABLE state_transitions (
    machine    text NOT NULL,
    from_state text NOT NULL,
    to_state   text NOT NULL,
    PRIMARY KEY (machine, from_state, to_state)
);

-- +goose StatementBegin
CREATE FUNCTION check_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state <> OLD.state AND NOT EXISTS (
        SELECT 1 FROM state_transitions t
        WHERE t.machine = TG_TABLE_NAME AND t.from_state = OLD.state AND t.to_state = NEW.state)
    THEN
        RAISE EXCEPTION '% % cannot go from % to %', TG_TABLE_NAME, OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = TG_TABLE_NAME || '_transition';
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd

CREATE TABLE organisations (
    id             uuid PRIMARY KEY,
    name           text NOT NULL CHECK (name = btrim(name) AND length(name) BETWEEN 1 AND 80),
    platform       boolean NOT NULL DEFAULT false, -- the one that runs this Muster
    payout_address text,                           -- wallet (not token account) that this organisation's earnings go to
    created_at     timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX organisations_one_platform ON organisations (platform) WHERE platform;

CREATE TABLE users (
    id             uuid PRIMARY KEY,
    wallet_address text NOT NULL UNIQUE,
    name           text NOT NULL DEFAULT '' CHECK (length(name) <= 80),
    created_at     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE memberships (
    org_id     uuid NOT NULL REFERENCES organisations,
    user_id    uuid NOT NULL REFERENCES users,
    roles      text[] NOT NULL CHECK (roles <@ ARRAY['engineer', 'owner', 'finance', 'admin', 'operator']
                                      AND cardinality(roles) > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, user_id)
);
CREATE INDEX memberships_by_user ON memberships (user_id);

CREATE TABLE siws_nonces (
    nonce_hash   bytea PRIMARY KEY,
    browser_hash bytea NOT NULL, -- of the cookie set with the nonce: another browser cannot spend it
    address      text NOT NULL,
    issued_at    timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    used_at      timestamptz
);

CREATE TABLE sessions (
    id           uuid PRIMARY KEY,
    token_hash   bytea NOT NULL UNIQUE,
    user_id      uuid NOT NULL REFERENCES users,
    signed_at    timestamptz NOT NULL DEFAULT now(), -- the last wallet signature: sensitive changes want a fresh one
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    revoked_at   timestamptz
);

CREATE TABLE api_keys (
    id           uuid PRIMARY KEY,
    org_id       uuid NOT NULL REFERENCES organisations,
    user_id      uuid NOT NULL REFERENCES users,
    name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 80),
    secret_hash  bytea NOT NULL UNIQUE,
    hint         text NOT NULL, -- the first characters, to recognise a key by
    scopes       text[] NOT NULL CHECK (cardinality(scopes) > 0),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at   timestamptz
);
CREATE INDEX api_keys_by_org ON api_keys (org_id);

-- Answers already given, by the caller's idempotency key. The same key with another request is a conflict.
CREATE TABLE idempotency_keys (
    org_id       uuid NOT NULL REFERENCES organisations,
    key          text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    operation    text NOT NULL,
    request_hash bytea NOT NULL,
    response     jsonb,       -- NULL while the first request is in flight
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, key)
);

-- +goose Down
DROP TABLE idempotency_keys, api_keys, sessions, siws_nonces, memberships, users, organisations;
DROP FUNCTION check_transition;
DROP TABLE state_transitions;
