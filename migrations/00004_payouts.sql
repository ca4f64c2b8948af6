-- +goose Up
-- Payouts: what is paid to owners on chain, exactly once. The flow is described in settlement/payouts.

INSERT INTO state_transitions (machine, from_state, to_state) VALUES
    ('payout_batches', 'draft', 'approved'), ('payout_batches', 'draft', 'cancelled'),
    ('payout_batches', 'approved', 'cancelled'), ('payout_batches', 'approved', 'signed'), ('payout_batches', 'approved', 'frozen'),
    ('payout_batches', 'signed', 'sent'),
    ('payout_batches', 'sent', 'finalized'), ('payout_batches', 'sent', 'failed'), ('payout_batches', 'sent', 'frozen');

CREATE TABLE payout_batches (
    id                 uuid PRIMARY KEY,
    state              text NOT NULL DEFAULT 'draft' CHECK (state IN
                           ('draft', 'approved', 'signed', 'sent', 'finalized', 'failed', 'frozen', 'cancelled')),
    state_reason       text NOT NULL DEFAULT '', -- why it failed, froze or was cancelled
    attention          text NOT NULL DEFAULT '', -- what holds a live batch up; empty when nothing does
    mint               text NOT NULL,
    total              bigint NOT NULL CHECK (total > 0),
    payee_count        integer NOT NULL CHECK (payee_count BETWEEN 1 AND 56),
    -- The pin: of all transactions on one value of a nonce the chain executes at most one.
    nonce_account      text NOT NULL CHECK (length(nonce_account) BETWEEN 32 AND 44),
    nonce_value        text NOT NULL CHECK (length(nonce_value) BETWEEN 32 AND 44),
    drafted_by         uuid REFERENCES users,
    drafted_at         timestamptz NOT NULL DEFAULT now(),
    approved_by        uuid REFERENCES users,
    approved_at        timestamptz,
    message            bytea,        -- what the signer was or will be asked to sign
    signing_started_at timestamptz,  -- from here on a signature may exist
    nonce_changed_at   timestamptz,  -- when the nonce was first seen consumed
    finalized_at       timestamptz,
    due_at             timestamptz NOT NULL DEFAULT now(), -- when a worker looks at it next
    claimed_by         uuid,
    claimed_term       bigint,
    claimed_until      timestamptz,
    UNIQUE (id, nonce_account, nonce_value),
    CHECK ((state IN ('draft', 'cancelled')) OR approved_at IS NOT NULL),
    CHECK ((approved_at IS NULL) = (approved_by IS NULL)),
    CHECK ((message IS NULL) = (signing_started_at IS NULL)),
    CHECK (state NOT IN ('signed', 'sent', 'finalized', 'failed') OR message IS NOT NULL),
    CONSTRAINT payout_batches_cancel_before_signing CHECK (state <> 'cancelled' OR signing_started_at IS NULL),
    CHECK ((state = 'finalized') = (finalized_at IS NOT NULL)),
    CHECK (state NOT IN ('failed', 'frozen', 'cancelled') OR state_reason <> '')
) WITH (fillfactor = 70);
CREATE TRIGGER payout_batches_transition BEFORE UPDATE OF state ON payout_batches
    FOR EACH ROW EXECUTE FUNCTION check_transition();
-- One live batch per nonce; a frozen one keeps its nonce until a person has decided. And a value is pinned once for good, unless
-- the batch was dropped before anybody could sign it.
CREATE UNIQUE INDEX payout_batches_one_live_per_nonce ON payout_batches (nonce_account)
    WHERE state IN ('draft', 'approved', 'signed', 'sent', 'frozen');
CREATE UNIQUE INDEX payout_batches_one_per_nonce_value ON payout_batches (nonce_account, nonce_value) WHERE state <> 'cancelled';
CREATE INDEX payout_batches_due ON payout_batches (due_at) WHERE state IN ('approved', 'signed', 'sent');

CREATE TABLE payouts (
    id              uuid PRIMARY KEY,
    batch_id        uuid NOT NULL REFERENCES payout_batches,
    payee_org_id    uuid NOT NULL REFERENCES organisations,
    wallet          text NOT NULL CHECK (length(wallet) BETWEEN 32 AND 44),
    token_account   text NOT NULL CHECK (length(token_account) BETWEEN 32 AND 44),
    creates_account boolean NOT NULL, -- the transaction creates the token account first
    amount          bigint NOT NULL CHECK (amount > 0),
    -- Counts the payee's signed payouts from 1. The signer counts too, and refuses any other number than the next.
    sequence        bigint NOT NULL CHECK (sequence > 0),
    live            boolean NOT NULL DEFAULT true,  -- until the batch has ended
    signed          boolean NOT NULL DEFAULT false, -- its number is used up, whatever became of the batch
    UNIQUE (batch_id, payee_org_id),
    UNIQUE (batch_id, token_account)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX payouts_one_live_per_payee ON payouts (payee_org_id) WHERE live;
CREATE UNIQUE INDEX payouts_one_per_sequence ON payouts (payee_org_id, sequence) WHERE signed;
CREATE INDEX payouts_by_payee ON payouts (payee_org_id, id);

-- The signed bytes, stored before they are first sent. A replacement must be on the nonce and value of its batch.
CREATE TABLE payout_transactions (
    signature       text PRIMARY KEY CHECK (length(signature) BETWEEN 64 AND 88),
    batch_id        uuid NOT NULL UNIQUE,
    nonce_account   text NOT NULL,
    nonce_value     text NOT NULL,
    wire            bytea NOT NULL,
    signed_at       timestamptz NOT NULL DEFAULT now(),
    first_sent_at   timestamptz,
    last_sent_at    timestamptz,
    send_count      integer NOT NULL DEFAULT 0,
    last_send_error text NOT NULL DEFAULT '',
    slot            bigint,      -- from here on as the chain finalized it
    block_time      timestamptz,
    fee_lamports    bigint,
    compute_units   bigint,
    chain_error     text,        -- empty: it succeeded
    FOREIGN KEY (batch_id, nonce_account, nonce_value) REFERENCES payout_batches (id, nonce_account, nonce_value)
) WITH (fillfactor = 70);

-- +goose StatementBegin
CREATE FUNCTION payout_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the pinned and signed parts of % do not change', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', CONSTRAINT = 'payout_immutable';
END $$;
-- +goose StatementEnd
CREATE TRIGGER payout_transactions_immutable BEFORE UPDATE OF signature, batch_id, nonce_account, nonce_value, wire
    ON payout_transactions FOR EACH ROW EXECUTE FUNCTION payout_refuse_change();
CREATE TRIGGER payouts_immutable BEFORE UPDATE OF id, batch_id, payee_org_id, wallet, token_account, amount, sequence
    ON payouts FOR EACH ROW EXECUTE FUNCTION payout_refuse_change();
CREATE TRIGGER payout_batches_immutable BEFORE UPDATE OF id, mint, total, payee_count, nonce_account, nonce_value, drafted_by
    ON payout_batches FOR EACH ROW EXECUTE FUNCTION payout_refuse_change();

-- Why a payee was left out of the last draft.
CREATE TABLE payout_obstacles (
    org_id     uuid PRIMARY KEY REFERENCES organisations,
    reason     text NOT NULL CHECK (reason <> ''),
    checked_at timestamptz NOT NULL DEFAULT now()
);

-- +goose Down
DROP TABLE payout_obstacles, payout_transactions, payouts, payout_batches;
DROP FUNCTION payout_refuse_change;
DELETE FROM state_transitions WHERE machine = 'payout_batches';
