-- +goose Up
-- Reconciliation: the ledger's chain accounts compared with the chain's own history of their token accounts.

CREATE TABLE reconciliations (
    id               uuid PRIMARY KEY,
    state            text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'clean', 'differences', 'failed')),
    reason           text NOT NULL DEFAULT '', -- why it failed
    requested_by     uuid REFERENCES users,    -- NULL: by the clock
    mint             text NOT NULL,
    slot             bigint NOT NULL DEFAULT 0, -- every account was read at least up to here
    matched          integer NOT NULL DEFAULT 0,
    difference_count integer NOT NULL DEFAULT 0,
    started_at       timestamptz NOT NULL DEFAULT now(),
    finished_at      timestamptz,
    CHECK ((state = 'running') = (finished_at IS NULL)),
    CHECK ((state = 'failed') = (reason <> '')),
    CHECK (state <> 'clean' OR difference_count = 0),
    CHECK (state <> 'differences' OR difference_count > 0)
);
CREATE UNIQUE INDEX reconciliations_one_running ON reconciliations ((true)) WHERE state = 'running';

CREATE TABLE reconciliation_accounts (
    reconciliation_id uuid NOT NULL REFERENCES reconciliations,
    token_account     text NOT NULL,
    name              text NOT NULL,
    opening           bigint NOT NULL,
    total_in          bigint NOT NULL,
    total_out         bigint NOT NULL,
    chain_closing     bigint NOT NULL, -- the live balance
    ledger_closing    bigint NOT NULL,
    transactions      integer NOT NULL,
    matched           integer NOT NULL,
    continuous        boolean NOT NULL, -- each transaction began with what the one before left, and the last left the live balance
    fee_lamports      bigint NOT NULL,  -- paid for the transactions that moved tokens out, or tried to
    slot              bigint NOT NULL,
    PRIMARY KEY (reconciliation_id, token_account)
);

CREATE TABLE reconciliation_differences (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reconciliation_id uuid NOT NULL REFERENCES reconciliations,
    class             text NOT NULL CHECK (class IN ('ledger_only', 'chain_only', 'amount_mismatch', 'duplicate', 'unresolved_nonce')),
    token_account     text NOT NULL,
    signature         text NOT NULL DEFAULT '',
    ledger_amount     bigint, -- signed: negative left the account
    chain_amount      bigint,
    occurred_at       timestamptz NOT NULL,
    explanation       text NOT NULL CHECK (explanation <> '')
);
CREATE INDEX reconciliation_differences_by_run ON reconciliation_differences (reconciliation_id, id);

-- +goose Down
DROP TABLE reconciliation_differences, reconciliation_accounts, reconciliations;
