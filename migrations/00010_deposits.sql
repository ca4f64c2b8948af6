-- +goose Up
-- Deposits, continued: sweeps into the treasury, and what people decide about tokens in suspense.

INSERT INTO state_transitions (machine, from_state, to_state) VALUES
    ('deposit_sweeps', 'planned', 'signed'), ('deposit_sweeps', 'planned', 'failed'), ('deposit_sweeps', 'planned', 'frozen'),
    ('deposit_sweeps', 'signed', 'finalized'), ('deposit_sweeps', 'signed', 'failed'), ('deposit_sweeps', 'signed', 'frozen');

-- A customer's tokens on their way from its deposit token account to the treasury's. The flow is described in settlement/sweeps.
CREATE TABLE deposit_sweeps (
    id               uuid PRIMARY KEY,
    org_id           uuid NOT NULL REFERENCES organisations,
    token_account    text NOT NULL,
    mint             text NOT NULL,
    amount           bigint NOT NULL CHECK (amount > 0),
    state            text NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'signed', 'finalized', 'failed', 'frozen')),
    reason           text NOT NULL DEFAULT '', -- why it failed or froze
    attention        text NOT NULL DEFAULT '', -- what holds a live one up
    nonce_account    text NOT NULL CHECK (length(nonce_account) BETWEEN 32 AND 44),
    nonce_value      text NOT NULL CHECK (length(nonce_value) BETWEEN 32 AND 44),
    message          bytea NOT NULL,           -- stored before the signer is asked
    signature        text UNIQUE CHECK (length(signature) BETWEEN 64 AND 88),
    wire             bytea,                    -- stored before it is sent
    planned_at       timestamptz NOT NULL DEFAULT now(),
    signed_at        timestamptz,
    last_sent_at     timestamptz,
    send_count       integer NOT NULL DEFAULT 0,
    nonce_changed_at timestamptz,
    slot             bigint,
    block_time       timestamptz,
    fee_lamports     bigint,
    ended_at         timestamptz,
    CHECK ((signature IS NULL) = (wire IS NULL)),
    CHECK ((signature IS NULL) = (signed_at IS NULL)),
    CHECK (state NOT IN ('signed', 'finalized') OR signature IS NOT NULL),
    CHECK ((state IN ('failed', 'frozen')) = (reason <> '')),
    CHECK ((state IN ('finalized', 'failed')) = (ended_at IS NOT NULL))
) WITH (fillfactor = 70);
CREATE TRIGGER deposit_sweeps_transition BEFORE UPDATE OF state ON deposit_sweeps FOR EACH ROW EXECUTE FUNCTION check_transition();
CREATE UNIQUE INDEX deposit_sweeps_one_live_per_account ON deposit_sweeps (token_account) WHERE state IN ('planned', 'signed', 'frozen');
CREATE UNIQUE INDEX deposit_sweeps_one_live_per_nonce ON deposit_sweeps (nonce_account) WHERE state IN ('planned', 'signed', 'frozen');
CREATE UNIQUE INDEX deposit_sweeps_one_per_nonce_value ON deposit_sweeps (nonce_account, nonce_value) WHERE signature IS NOT NULL;
CREATE INDEX deposit_sweeps_by_org ON deposit_sweeps (org_id, id);

-- +goose StatementBegin
CREATE FUNCTION deposit_sweep_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.org_id, NEW.token_account, NEW.mint, NEW.amount, NEW.nonce_account, NEW.nonce_value, NEW.message)
           IS DISTINCT FROM (OLD.id, OLD.org_id, OLD.token_account, OLD.mint, OLD.amount, OLD.nonce_account, OLD.nonce_value, OLD.message)
        OR (OLD.signature IS NOT NULL AND (NEW.signature, NEW.wire) IS DISTINCT FROM (OLD.signature, OLD.wire))
    THEN
        RAISE EXCEPTION 'the planned and signed parts of a sweep do not change'
            USING ERRCODE = 'restrict_violation', CONSTRAINT = 'deposit_sweep_immutable';
    END IF;
    RETURN NEW;
END $$;

-- A nonce is pinned by one live batch of payouts or one live sweep, not both. The lock is the nonce's own, so that drafts of other
-- batches go on.
CREATE FUNCTION nonce_pinned_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(7283005, hashtext(NEW.nonce_account));
    IF (TG_TABLE_NAME = 'payout_batches' AND EXISTS (
            SELECT 1 FROM deposit_sweeps s WHERE s.nonce_account = NEW.nonce_account
                AND (s.state IN ('planned', 'signed', 'frozen') OR (s.signature IS NOT NULL AND s.nonce_value = NEW.nonce_value))))
        OR (TG_TABLE_NAME = 'deposit_sweeps' AND EXISTS (
            SELECT 1 FROM payout_batches b WHERE b.nonce_account = NEW.nonce_account
                AND (b.state NOT IN ('finalized', 'failed', 'cancelled') OR (b.message IS NOT NULL AND b.nonce_value = NEW.nonce_value))))
    THEN
        RAISE EXCEPTION 'the nonce % is pinned already', NEW.nonce_account
            USING ERRCODE = 'unique_violation', CONSTRAINT = 'nonce_pinned_once';
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER deposit_sweeps_immutable BEFORE UPDATE ON deposit_sweeps FOR EACH ROW EXECUTE FUNCTION deposit_sweep_refuse_change();
CREATE TRIGGER deposit_sweeps_nonce BEFORE INSERT ON deposit_sweeps FOR EACH ROW EXECUTE FUNCTION nonce_pinned_once();
CREATE TRIGGER payout_batches_nonce BEFORE INSERT ON payout_batches FOR EACH ROW EXECUTE FUNCTION nonce_pinned_once();

-- What a person decided about an arrival in suspense. Without a row it waits.
CREATE TABLE suspense_decisions (
    deposit_id uuid PRIMARY KEY REFERENCES deposits,
    outcome    text NOT NULL CHECK (outcome IN ('credited', 'kept', 'held')),
    org_id     uuid REFERENCES organisations, -- whom it was credited to
    note       text NOT NULL CHECK (length(note) BETWEEN 1 AND 500),
    decided_by uuid NOT NULL REFERENCES users,
    decided_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((outcome = 'credited') = (org_id IS NOT NULL))
);
-- What is only held may be decided anew; tokens that moved may not.
-- +goose StatementBegin
CREATE FUNCTION suspense_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the decision on % has moved tokens: post a correcting entry instead', OLD.deposit_id
        USING ERRCODE = 'restrict_violation', CONSTRAINT = 'suspense_final';
END $$;
-- +goose StatementEnd
CREATE TRIGGER suspense_decisions_final BEFORE UPDATE OR DELETE ON suspense_decisions FOR EACH ROW
    WHEN (OLD.outcome <> 'held') EXECUTE FUNCTION suspense_refuse_change();

-- +goose Down
DROP TABLE suspense_decisions;
DROP FUNCTION suspense_refuse_change;
DROP TRIGGER payout_batches_nonce ON payout_batches;
DROP TABLE deposit_sweeps;
DROP FUNCTION nonce_pinned_once, deposit_sweep_refuse_change;
DELETE FROM state_transitions WHERE machine = 'deposit_sweeps';
