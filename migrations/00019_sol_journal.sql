-- +goose Up
-- The SOL journal: every change of the treasury wallet's lamports, and why. It is described in settlement/soljournal.

-- A final transaction that changed a wallet's lamports. Each begins with what the one before it left: a foreign key says so, and is the
-- proof that none is missing.
CREATE TABLE sol_transactions (
    wallet       text NOT NULL CHECK (length(wallet) BETWEEN 32 AND 44),
    seq          bigint NOT NULL CHECK (seq > 0),
    signature    text NOT NULL CHECK (length(signature) BETWEEN 64 AND 88),
    slot         bigint NOT NULL,
    at           timestamptz NOT NULL, -- the block's; the journal's own time where the cluster does not say
    failed       boolean NOT NULL,
    before       bigint NOT NULL CHECK (before >= 0), -- lamports
    after        bigint NOT NULL CHECK (after >= 0),
    previous_seq bigint,
    PRIMARY KEY (wallet, seq),
    UNIQUE (wallet, signature),
    UNIQUE (wallet, seq, after),
    CHECK (before <> after),
    CONSTRAINT sol_transactions_first CHECK (coalesce(previous_seq, 0) = seq - 1 AND (previous_seq IS NOT NULL OR before = 0)),
    CONSTRAINT sol_transactions_continuous FOREIGN KEY (wallet, previous_seq, before) REFERENCES sol_transactions (wallet, seq, after)
);
CREATE INDEX sol_transactions_by_time ON sol_transactions (wallet, at, seq);
CREATE INDEX sol_transactions_by_signature ON sol_transactions (signature);

-- What a transaction's change is made of.
CREATE TABLE sol_lines (
    wallet   text NOT NULL,
    seq      bigint NOT NULL,
    ordinal  smallint NOT NULL CHECK (ordinal > 0),
    kind     text NOT NULL CHECK (kind IN ('base_fee', 'priority_fee', 'rent_out', 'rent_back', 'top_up', 'sent')),
    lamports bigint NOT NULL, -- what the wallet has more afterwards; negative: less
    other    text NOT NULL DEFAULT '', -- the account that they went to or came from; empty for fees, and where there are several
    PRIMARY KEY (wallet, seq, ordinal),
    FOREIGN KEY (wallet, seq) REFERENCES sol_transactions,
    CHECK (CASE WHEN kind IN ('rent_back', 'top_up') THEN lamports > 0 ELSE lamports < 0 END)
);

-- A transaction's lines are its whole change. It is checked when all of them are there.
-- +goose StatementBegin
CREATE FUNCTION sol_check_lines() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT coalesce(sum(l.lamports), 0) FROM sol_lines l WHERE l.wallet = NEW.wallet AND l.seq = NEW.seq)
        <> (SELECT t.after - t.before FROM sol_transactions t WHERE t.wallet = NEW.wallet AND t.seq = NEW.seq)
    THEN
        RAISE EXCEPTION 'the lines of transaction % of % are not what it changed', NEW.seq, NEW.wallet
            USING ERRCODE = 'check_violation', CONSTRAINT = 'sol_lines_sum';
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE CONSTRAINT TRIGGER sol_transactions_sum AFTER INSERT ON sol_transactions DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION sol_check_lines();
CREATE CONSTRAINT TRIGGER sol_lines_sum AFTER INSERT ON sol_lines DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION sol_check_lines();
CREATE TRIGGER sol_transactions_immutable BEFORE UPDATE OR DELETE ON sol_transactions FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER sol_transactions_keep BEFORE TRUNCATE ON sol_transactions FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER sol_lines_immutable BEFORE UPDATE OR DELETE ON sol_lines FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER sol_lines_keep BEFORE TRUNCATE ON sol_lines FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();

-- What a run found about a wallet's lamports.
CREATE TABLE reconciliation_wallets (
    reconciliation_id uuid NOT NULL REFERENCES reconciliations,
    wallet            text NOT NULL,
    name              text NOT NULL,
    lamports          bigint NOT NULL, -- live, at the slot
    journal_lamports  bigint NOT NULL, -- that the journal's newest transaction left
    transactions      bigint NOT NULL,
    continuous        boolean NOT NULL,
    slot              bigint NOT NULL,
    PRIMARY KEY (reconciliation_id, wallet)
);

ALTER TABLE reconciliation_differences
    ADD COLUMN mint text; -- of the amounts; NULL: the run's

-- +goose Down
ALTER TABLE reconciliation_differences DROP COLUMN mint;
DROP TABLE reconciliation_wallets, sol_lines, sol_transactions;
DROP FUNCTION sol_check_lines;
