-- +goose Up
-- Payouts, continued: runs, withdrawals, dual approval, cancelling after signing, frozen batches resolved with evidence, and what they
-- cost in SOL. The flow is described in settlement/payouts.

INSERT INTO state_transitions (machine, from_state, to_state) VALUES
    ('payout_batches', 'signed', 'cancelling'), ('payout_batches', 'sent', 'cancelling'),
    ('payout_batches', 'cancelling', 'cancelled'), ('payout_batches', 'cancelling', 'finalized'),
    ('payout_batches', 'cancelling', 'failed'), ('payout_batches', 'cancelling', 'frozen'),
    ('payout_batches', 'frozen', 'finalized'), ('payout_batches', 'frozen', 'cancelled'),
    ('withdrawals', 'requested', 'drafted'), ('withdrawals', 'requested', 'cancelled'),
    ('withdrawals', 'drafted', 'requested'), ('withdrawals', 'drafted', 'paid');

-- When runs begin by themselves.
CREATE TABLE payout_schedule (
    single     boolean PRIMARY KEY DEFAULT true CHECK (single), -- there is one row
    enabled    boolean NOT NULL,
    every_days integer CHECK (every_days BETWEEN 1 AND 366), -- counted from starts_on
    weekdays   integer[] CHECK (weekdays <@ ARRAY[0, 1, 2, 3, 4, 5, 6] AND cardinality(weekdays) > 0), -- 0 is Sunday
    at_minute  integer NOT NULL CHECK (at_minute BETWEEN 0 AND 1439), -- of the UTC day
    threshold  bigint CHECK (threshold > 0), -- also when so much is payable
    starts_on  date NOT NULL,
    updated_by uuid REFERENCES users,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK (every_days IS NULL OR weekdays IS NULL)
);

-- A run drafts batches of everything that is payable, in rounds where there are fewer nonces than batches.
CREATE TABLE payout_runs (
    id              uuid PRIMARY KEY,
    kind            text NOT NULL CHECK (kind IN ('manual', 'scheduled', 'threshold')),
    state           text NOT NULL DEFAULT 'drafting' CHECK (state IN ('drafting', 'done', 'failed')),
    reason          text NOT NULL DEFAULT '', -- why it failed, or what it waits for
    scheduled_for   timestamptz UNIQUE,
    requested_by    uuid REFERENCES users, -- NULL: by the clock
    rounds          integer NOT NULL DEFAULT 0,
    batch_count     integer NOT NULL DEFAULT 0,
    payee_count     integer NOT NULL DEFAULT 0,
    left_out_count  integer NOT NULL DEFAULT 0,
    total           bigint NOT NULL DEFAULT 0,
    started_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz,
    due_at          timestamptz NOT NULL DEFAULT now(), -- the next round
    CHECK ((state = 'drafting') = (finished_at IS NULL)),
    CHECK (state <> 'failed' OR reason <> ''),
    CHECK ((kind = 'scheduled') = (scheduled_for IS NOT NULL))
);
CREATE UNIQUE INDEX payout_runs_one_drafting ON payout_runs ((true)) WHERE state = 'drafting';

-- A customer's prepaid balance on its way back, or tokens that could not be credited. The money is in flight in the ledger from the
-- request on, so that it cannot be spent meanwhile.
CREATE TABLE withdrawals (
    id           uuid PRIMARY KEY,
    org_id       uuid NOT NULL REFERENCES organisations,
    purpose      text NOT NULL CHECK (purpose IN ('withdrawal', 'refund')),
    state        text NOT NULL DEFAULT 'requested' CHECK (state IN ('requested', 'drafted', 'paid', 'cancelled')),
    mint         text NOT NULL,
    amount       bigint NOT NULL CHECK (amount > 0),
    wallet       text NOT NULL CHECK (length(wallet) BETWEEN 32 AND 44),
    taken_from   text NOT NULL,                   -- the kind of ledger account that it goes back to if nothing is paid
    taken_org_id uuid REFERENCES organisations,   -- and whose
    reference    text NOT NULL DEFAULT '' CHECK (length(reference) <= 200), -- what is refunded
    attention    text NOT NULL DEFAULT '',        -- why it is not paid yet
    requested_by uuid REFERENCES users,
    requested_at timestamptz NOT NULL DEFAULT now(),
    ended_at     timestamptz,
    CHECK ((state IN ('paid', 'cancelled')) = (ended_at IS NOT NULL))
) WITH (fillfactor = 70);
CREATE TRIGGER withdrawals_transition BEFORE UPDATE OF state ON withdrawals FOR EACH ROW EXECUTE FUNCTION check_transition();
CREATE TRIGGER withdrawals_immutable BEFORE UPDATE OF id, org_id, purpose, mint, amount, wallet, taken_from, taken_org_id, reference
    ON withdrawals FOR EACH ROW EXECUTE FUNCTION payout_refuse_change();
CREATE UNIQUE INDEX withdrawals_one_open_per_org ON withdrawals (org_id) WHERE purpose = 'withdrawal' AND state IN ('requested', 'drafted');
CREATE UNIQUE INDEX withdrawals_one_per_refund ON withdrawals (reference) WHERE purpose = 'refund' AND state <> 'cancelled';
CREATE INDEX withdrawals_requested ON withdrawals (id) WHERE state = 'requested';
CREATE INDEX withdrawals_by_org ON withdrawals (org_id, id);

ALTER TABLE payout_batches
    ADD COLUMN memo             text CHECK (length(memo) BETWEEN 1 AND 120), -- NULL: the batch's id alone
    ADD COLUMN run_id           uuid REFERENCES payout_runs,
    ADD COLUMN approvals_needed integer NOT NULL DEFAULT 1 CHECK (approvals_needed BETWEEN 1 AND 2),
    ADD COLUMN cancel_asked_at  timestamptz, -- from here on the pinned nonce value is to be consumed by a cancellation
    ADD COLUMN cancel_asked_by  uuid REFERENCES users,
    -- The final transaction that consumed the nonce instead of paying, or that paid a batch which a person resolved.
    ADD COLUMN voided_by        text CHECK (length(voided_by) BETWEEN 64 AND 88),
    ADD COLUMN paid_by          text CHECK (length(paid_by) BETWEEN 64 AND 88) UNIQUE,
    DROP CONSTRAINT payout_batches_state_check,
    ADD CONSTRAINT payout_batches_state_check CHECK (state IN
        ('draft', 'approved', 'signed', 'sent', 'cancelling', 'finalized', 'failed', 'frozen', 'cancelled')),
    DROP CONSTRAINT payout_batches_check3,
    ADD CONSTRAINT payout_batches_message CHECK
        (state NOT IN ('signed', 'sent', 'cancelling', 'finalized', 'failed') OR message IS NOT NULL OR paid_by IS NOT NULL),
    -- Once a signature may exist, a batch is dropped only when its nonce value has been consumed by something else.
    DROP CONSTRAINT payout_batches_cancel_before_signing,
    ADD CONSTRAINT payout_batches_cancel_needs_void CHECK (state <> 'cancelled' OR signing_started_at IS NULL OR voided_by IS NOT NULL),
    ADD CONSTRAINT payout_batches_cancelling_is_asked CHECK (state <> 'cancelling' OR cancel_asked_at IS NOT NULL);
CREATE TRIGGER payout_batches_memo_immutable BEFORE UPDATE OF memo, run_id, approvals_needed
    ON payout_batches FOR EACH ROW WHEN (OLD.state <> 'draft') EXECUTE FUNCTION payout_refuse_change();
DROP INDEX payout_batches_one_live_per_nonce;
CREATE UNIQUE INDEX payout_batches_one_live_per_nonce ON payout_batches (nonce_account)
    WHERE state IN ('draft', 'approved', 'signed', 'sent', 'cancelling', 'frozen');
DROP INDEX payout_batches_one_per_nonce_value;
CREATE UNIQUE INDEX payout_batches_one_per_nonce_value ON payout_batches (nonce_account, nonce_value)
    WHERE state <> 'cancelled' OR voided_by IS NOT NULL;
DROP INDEX payout_batches_due;
CREATE INDEX payout_batches_due ON payout_batches (due_at)
    WHERE state IN ('approved', 'signed', 'sent', 'cancelling') OR (state = 'frozen' AND cancel_asked_at IS NOT NULL AND nonce_changed_at IS NULL);
CREATE INDEX payout_batches_by_run ON payout_batches (run_id, id) WHERE run_id IS NOT NULL;

ALTER TABLE payouts
    ADD COLUMN purpose       text NOT NULL DEFAULT 'earnings' CHECK (purpose IN ('earnings', 'withdrawal', 'refund')),
    ADD COLUMN withdrawal_id uuid REFERENCES withdrawals,
    ADD CONSTRAINT payouts_withdrawal CHECK ((purpose = 'earnings') = (withdrawal_id IS NULL));
CREATE TRIGGER payouts_purpose_immutable BEFORE UPDATE OF purpose, withdrawal_id
    ON payouts FOR EACH ROW EXECUTE FUNCTION payout_refuse_change();
CREATE UNIQUE INDEX payouts_one_live_per_withdrawal ON payouts (withdrawal_id) WHERE live;
CREATE INDEX payouts_by_token_account ON payouts (token_account);

ALTER TABLE payout_transactions
    ADD COLUMN rent_lamports bigint CHECK (rent_lamports >= 0); -- for token accounts that it made

-- A bare advance of a batch's own nonce value, stored before it is first sent. Of it and the batch's transaction one can land.
CREATE TABLE payout_cancellations (
    batch_id        uuid PRIMARY KEY,
    nonce_account   text NOT NULL,
    nonce_value     text NOT NULL,
    message         bytea NOT NULL, -- stored before the signer is asked
    signature       text UNIQUE CHECK (length(signature) BETWEEN 64 AND 88),
    wire            bytea,
    signed_at       timestamptz,
    first_sent_at   timestamptz,
    last_sent_at    timestamptz,
    send_count      integer NOT NULL DEFAULT 0,
    last_send_error text NOT NULL DEFAULT '',
    slot            bigint,
    block_time      timestamptz,
    fee_lamports    bigint,
    chain_error     text,
    CHECK ((signature IS NULL) = (wire IS NULL)),
    CHECK (first_sent_at IS NULL OR wire IS NOT NULL),
    FOREIGN KEY (batch_id, nonce_account, nonce_value) REFERENCES payout_batches (id, nonce_account, nonce_value)
) WITH (fillfactor = 70);
-- +goose StatementBegin
CREATE FUNCTION payout_cancellation_check() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.batch_id, NEW.nonce_account, NEW.nonce_value) IS DISTINCT FROM (OLD.batch_id, OLD.nonce_account, OLD.nonce_value)
        OR (OLD.signature IS NOT NULL AND (NEW.message, NEW.signature, NEW.wire) IS DISTINCT FROM (OLD.message, OLD.signature, OLD.wire))
    THEN
        RAISE EXCEPTION 'the pinned and signed parts of % do not change', TG_TABLE_NAME
            USING ERRCODE = 'restrict_violation', CONSTRAINT = 'payout_immutable';
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER payout_cancellations_immutable BEFORE UPDATE ON payout_cancellations
    FOR EACH ROW EXECUTE FUNCTION payout_cancellation_check();

CREATE TABLE payout_approvals (
    batch_id    uuid NOT NULL REFERENCES payout_batches,
    approver    uuid NOT NULL REFERENCES users,
    approved_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (batch_id, approver)
);
INSERT INTO payout_approvals (batch_id, approver, approved_at)
SELECT id, approved_by, approved_at FROM payout_batches WHERE approved_by IS NOT NULL;
CREATE TRIGGER payout_approvals_immutable BEFORE UPDATE OR DELETE ON payout_approvals
    FOR EACH ROW EXECUTE FUNCTION payout_refuse_change();

-- How a frozen batch ended, and who says so: one person proposes, another confirms.
CREATE TABLE payout_resolutions (
    batch_id     uuid PRIMARY KEY REFERENCES payout_batches,
    outcome      text NOT NULL CHECK (outcome IN ('paid', 'not_paid')),
    signature    text NOT NULL CHECK (length(signature) BETWEEN 64 AND 88), -- the evidence on chain
    note         text NOT NULL CHECK (length(note) BETWEEN 1 AND 500),
    proposed_by  uuid NOT NULL REFERENCES users,
    proposed_at  timestamptz NOT NULL DEFAULT now(),
    confirmed_by uuid REFERENCES users,
    confirmed_at timestamptz,
    CHECK ((confirmed_by IS NULL) = (confirmed_at IS NULL))
);
CREATE TRIGGER payout_resolutions_final BEFORE UPDATE OR DELETE ON payout_resolutions
    FOR EACH ROW WHEN (OLD.confirmed_at IS NOT NULL) EXECUTE FUNCTION payout_refuse_change();

-- What became of each payee in a run: a batch, or the reason why not.
CREATE TABLE payout_run_payees (
    run_id   uuid NOT NULL REFERENCES payout_runs,
    org_id   uuid NOT NULL REFERENCES organisations,
    purpose  text NOT NULL CHECK (purpose IN ('earnings', 'withdrawal', 'refund')),
    amount   bigint NOT NULL CHECK (amount > 0),
    batch_id uuid REFERENCES payout_batches,
    reason   text NOT NULL DEFAULT '',
    CHECK (batch_id IS NOT NULL OR reason <> ''),
    UNIQUE NULLS NOT DISTINCT (run_id, org_id, purpose, batch_id)
);

-- The signer's nonces as they were last seen.
CREATE TABLE payout_nonces (
    account    text PRIMARY KEY CHECK (length(account) BETWEEN 32 AND 44),
    value      text NOT NULL DEFAULT '', -- empty: it could not be read
    problem    text NOT NULL DEFAULT '', -- why it cannot be used
    lamports   bigint NOT NULL DEFAULT 0 CHECK (lamports >= 0), -- its rent
    checked_at timestamptz NOT NULL DEFAULT now()
);

-- +goose Down
DROP TABLE payout_nonces, payout_run_payees, payout_resolutions, payout_approvals, payout_cancellations;
DROP FUNCTION payout_cancellation_check;
ALTER TABLE payout_transactions DROP COLUMN rent_lamports;
DROP TRIGGER payouts_purpose_immutable ON payouts;
DROP INDEX payouts_by_token_account, payouts_one_live_per_withdrawal;
ALTER TABLE payouts DROP CONSTRAINT payouts_withdrawal, DROP COLUMN withdrawal_id, DROP COLUMN purpose;
DROP TRIGGER payout_batches_memo_immutable ON payout_batches;
DROP INDEX payout_batches_by_run, payout_batches_due, payout_batches_one_per_nonce_value, payout_batches_one_live_per_nonce;
ALTER TABLE payout_batches
    DROP CONSTRAINT payout_batches_cancelling_is_asked,
    DROP CONSTRAINT payout_batches_cancel_needs_void,
    DROP CONSTRAINT payout_batches_message,
    DROP CONSTRAINT payout_batches_state_check,
    DROP COLUMN paid_by, DROP COLUMN voided_by, DROP COLUMN cancel_asked_by, DROP COLUMN cancel_asked_at,
    DROP COLUMN approvals_needed, DROP COLUMN run_id, DROP COLUMN memo,
    ADD CONSTRAINT payout_batches_state_check CHECK (state IN
        ('draft', 'approved', 'signed', 'sent', 'finalized', 'failed', 'frozen', 'cancelled')),
    ADD CONSTRAINT payout_batches_check3 CHECK (state NOT IN ('signed', 'sent', 'finalized', 'failed') OR message IS NOT NULL),
    ADD CONSTRAINT payout_batches_cancel_before_signing CHECK (state <> 'cancelled' OR signing_started_at IS NULL);
CREATE UNIQUE INDEX payout_batches_one_live_per_nonce ON payout_batches (nonce_account)
    WHERE state IN ('draft', 'approved', 'signed', 'sent', 'frozen');
CREATE UNIQUE INDEX payout_batches_one_per_nonce_value ON payout_batches (nonce_account, nonce_value) WHERE state <> 'cancelled';
CREATE INDEX payout_batches_due ON payout_batches (due_at) WHERE state IN ('approved', 'signed', 'sent');
DROP TABLE withdrawals, payout_runs, payout_schedule;
DELETE FROM state_transitions WHERE machine = 'withdrawals' OR (machine = 'payout_batches' AND
    ('cancelling' IN (from_state, to_state) OR (from_state = 'frozen' AND to_state IN ('finalized', 'cancelled'))));
