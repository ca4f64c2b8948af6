-- +goose Up
-- What strangers send to the platform's wallets bounds no reconciliation. It is described in settlement/reconcile and settlement/soljournal.

ALTER TABLE holding_wallets
    ADD COLUMN unread_since timestamptz, -- it has more accounts of the platform's own token than can be read, and none was
    ADD CONSTRAINT holding_wallets_unread CHECK (too_many OR unread_since IS NULL);

-- A run that has compared all but a journal that has not come to the present yet.
ALTER TABLE reconciliations
    DROP CONSTRAINT reconciliations_state_check,
    DROP CONSTRAINT reconciliations_check1,
    ADD CONSTRAINT reconciliations_state_check CHECK (state IN ('running', 'clean', 'differences', 'behind', 'failed')),
    ADD CONSTRAINT reconciliations_reason CHECK ((state IN ('behind', 'failed')) = (reason <> ''));
ALTER TABLE reconciliation_wallets
    ADD COLUMN behind boolean NOT NULL DEFAULT false, -- the history has not been read to its end yet
    ADD CONSTRAINT reconciliation_wallets_behind CHECK (NOT (behind AND continuous));

-- How far a wallet's history has been read, where that is later than its newest transaction in the journal: most of a long history may
-- only mention the wallet.
CREATE TABLE sol_readings (
    wallet    text PRIMARY KEY CHECK (length(wallet) BETWEEN 32 AND 44),
    next_slot bigint NOT NULL CHECK (next_slot >= 0) -- all before it has been read
) WITH (fillfactor = 70);

-- Where a history that is longer than one look lists is cut into pieces: it is listed from its newest transaction on, and read from its oldest.
CREATE TABLE sol_marks (
    wallet    text NOT NULL CHECK (length(wallet) BETWEEN 32 AND 44),
    depth     integer NOT NULL CHECK (depth > 0), -- the deepest is the oldest
    signature text NOT NULL CHECK (length(signature) BETWEEN 64 AND 88),
    slot      bigint NOT NULL,
    PRIMARY KEY (wallet, depth)
);

-- The journal is compared with the newest of what was noted.
CREATE INDEX payout_transactions_by_slot ON payout_transactions (slot) WHERE slot IS NOT NULL;
CREATE INDEX payout_cancellations_by_slot ON payout_cancellations (slot) WHERE slot IS NOT NULL;
CREATE INDEX deposit_sweeps_by_slot ON deposit_sweeps (slot) WHERE slot IS NOT NULL;
CREATE INDEX payout_batches_by_void ON payout_batches (voided_by) WHERE voided_by IS NOT NULL;

-- +goose Down
DROP INDEX payout_batches_by_void, deposit_sweeps_by_slot, payout_cancellations_by_slot, payout_transactions_by_slot;
DROP TABLE sol_marks, sol_readings;
ALTER TABLE reconciliation_wallets DROP CONSTRAINT reconciliation_wallets_behind, DROP COLUMN behind;
UPDATE reconciliations SET state = 'failed' WHERE state = 'behind';
ALTER TABLE reconciliations
    DROP CONSTRAINT reconciliations_reason,
    DROP CONSTRAINT reconciliations_state_check,
    ADD CONSTRAINT reconciliations_check1 CHECK ((state = 'failed') = (reason <> '')),
    ADD CONSTRAINT reconciliations_state_check CHECK (state IN ('running', 'clean', 'differences', 'failed'));
ALTER TABLE holding_wallets DROP CONSTRAINT holding_wallets_unread, DROP COLUMN unread_since;
