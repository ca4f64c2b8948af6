-- +goose Up
-- Reconciliation, continued: differences as work items, closed months, and the audit log of what people do in finance.

-- Where each walk may go on: everything before was found equal on both sides. Only a walk without a difference moves it.
CREATE TABLE reconciliation_cursors (
    token_account  text PRIMARY KEY,
    mint           text NOT NULL,
    slot           bigint NOT NULL,
    signature      text NOT NULL,   -- the newest transaction before the cursor that moved tokens
    chain_balance  bigint NOT NULL, -- what it left
    ledger_seq     bigint NOT NULL, -- place in the ledger account's history
    ledger_balance bigint NOT NULL, -- at that place
    total_in       bigint NOT NULL,
    total_out      bigint NOT NULL,
    transactions   bigint NOT NULL,
    matched        bigint NOT NULL,
    fee_lamports   bigint NOT NULL,
    verified_at    timestamptz NOT NULL DEFAULT now(),
    CHECK (chain_balance = total_in - total_out),
    CHECK (chain_balance = ledger_balance)
) WITH (fillfactor = 70);

-- A difference across runs. What makes it the same one is where it is and what it is about, not the run that saw it.
CREATE TABLE difference_items (
    id               uuid PRIMARY KEY,
    mint             text NOT NULL,
    class            text NOT NULL CHECK (class IN ('ledger_only', 'chain_only', 'amount_mismatch', 'duplicate', 'unresolved_nonce')),
    token_account    text NOT NULL,
    signature        text NOT NULL DEFAULT '',
    entry_key        text NOT NULL DEFAULT '', -- of the ledger entry, where the class is about an entry
    state            text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'resolved', 'gone')),
    present          boolean NOT NULL DEFAULT true, -- the newest run saw it
    ledger_amount    bigint, -- signed: negative left the account
    chain_amount     bigint,
    occurred_at      timestamptz NOT NULL,
    explanation      text NOT NULL CHECK (explanation <> ''),
    owner_id         uuid REFERENCES users, -- who looks into it
    note             text NOT NULL DEFAULT '' CHECK (length(note) <= 2000),
    resolution       text NOT NULL DEFAULT '' CHECK (resolution IN ('', 'posted_correction', 'chain_explained', 'waived')),
    reason           text NOT NULL DEFAULT '' CHECK (length(reason) <= 2000),
    resolved_by      uuid REFERENCES users,
    first_run        uuid NOT NULL REFERENCES reconciliations,
    last_run         uuid NOT NULL REFERENCES reconciliations,
    first_seen_at    timestamptz NOT NULL DEFAULT now(),
    last_seen_at     timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    UNIQUE (mint, class, token_account, signature, entry_key),
    CHECK ((state = 'resolved') = (resolution <> '')),
    CHECK ((state = 'resolved') = (resolved_by IS NOT NULL)),
    CHECK ((state = 'resolved') = (reason <> '')),
    CHECK (state <> 'gone' OR NOT present)
) WITH (fillfactor = 70);
CREATE INDEX difference_items_open ON difference_items (id) WHERE state = 'open';
CREATE INDEX difference_items_present ON difference_items (mint) WHERE present;

-- What became of an item, and who did it: a person, or a run.
CREATE TABLE difference_changes (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    item_id uuid NOT NULL REFERENCES difference_items,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    by_user uuid REFERENCES users,
    by_run  uuid REFERENCES reconciliations,
    what    text NOT NULL CHECK (what <> ''),
    CHECK ((by_user IS NULL) <> (by_run IS NULL))
);
CREATE INDEX difference_changes_by_item ON difference_changes (item_id, id);
CREATE TRIGGER difference_changes_immutable BEFORE UPDATE OR DELETE ON difference_changes
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER difference_changes_keep BEFORE TRUNCATE ON difference_changes
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();

-- A month's frozen figures. One that was reopened stays, as what was said then.
CREATE TABLE period_closings (
    id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    month              date NOT NULL CHECK (date_trunc('month', month::timestamp) = month::timestamp),
    mint               text NOT NULL,
    reconciliation_id  uuid NOT NULL REFERENCES reconciliations,
    snapshot           text NOT NULL,
    sha256             bytea NOT NULL CHECK (length(sha256) = 32),
    closed_by          uuid NOT NULL REFERENCES users,
    closed_at          timestamptz NOT NULL DEFAULT now(),
    reopen_reason      text NOT NULL DEFAULT '',
    reopen_asked_by    uuid REFERENCES users,
    reopen_asked_at    timestamptz,
    reopened_by        uuid REFERENCES users,
    reopened_at        timestamptz,
    CHECK ((reopen_asked_by IS NULL) = (reopen_asked_at IS NULL)),
    CHECK ((reopen_asked_by IS NULL) = (reopen_reason = '')),
    CHECK ((reopened_by IS NULL) = (reopened_at IS NULL)),
    CHECK (reopened_by IS NULL OR reopen_asked_by IS NOT NULL)
);
CREATE UNIQUE INDEX period_closings_one_in_force ON period_closings (mint, month) WHERE reopened_at IS NULL;

-- +goose StatementBegin
CREATE FUNCTION period_closing_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.reopened_at IS NOT NULL
        OR (NEW.id, NEW.month, NEW.mint, NEW.reconciliation_id, NEW.snapshot, NEW.sha256, NEW.closed_by, NEW.closed_at)
           IS DISTINCT FROM (OLD.id, OLD.month, OLD.mint, OLD.reconciliation_id, OLD.snapshot, OLD.sha256, OLD.closed_by, OLD.closed_at)
        OR (OLD.reopen_asked_by IS NOT NULL AND (NEW.reopen_asked_by, NEW.reopen_asked_at, NEW.reopen_reason)
            IS DISTINCT FROM (OLD.reopen_asked_by, OLD.reopen_asked_at, OLD.reopen_reason))
    THEN
        RAISE EXCEPTION 'a closed month does not change'
            USING ERRCODE = 'restrict_violation', CONSTRAINT = 'period_closing_immutable';
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER period_closings_immutable BEFORE UPDATE OR DELETE ON period_closings
    FOR EACH ROW EXECUTE FUNCTION period_closing_refuse_change();
CREATE TRIGGER period_closings_keep BEFORE TRUNCATE ON period_closings
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();

-- Who did what in finance. Each row's hash covers its content and the hash before it, so none can be altered or left out unseen.
CREATE TABLE audit_log (
    seq      bigint PRIMARY KEY CHECK (seq > 0),
    at       timestamptz NOT NULL,
    user_id  uuid REFERENCES users, -- NULL: the platform itself
    action   text NOT NULL CHECK (action ~ '^[a-z][a-z_]*(\.[a-z_]+)+$'),
    subject  text NOT NULL,
    details  text NOT NULL, -- JSON, the bytes that were hashed
    previous bytea NOT NULL CHECK (length(previous) = 32),
    hash     bytea NOT NULL UNIQUE CHECK (length(hash) = 32)
);
CREATE TRIGGER audit_log_immutable BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER audit_log_keep BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();

-- +goose Down
DROP TABLE audit_log, period_closings, difference_changes, difference_items, reconciliation_cursors;
DROP FUNCTION period_closing_refuse_change;
