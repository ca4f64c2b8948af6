-- +goose Up
-- Token accounts of the platform's wallets beside the one of each wallet that the ledger mirrors. They are described in settlement/reconcile.

-- What a wallet said when it was last asked for its token accounts.
CREATE TABLE holding_wallets (
    wallet   text PRIMARY KEY CHECK (length(wallet) BETWEEN 32 AND 44),
    asked_at timestamptz NOT NULL DEFAULT now(),
    left_out bigint NOT NULL CHECK (left_out >= 0), -- accounts of foreign tokens beyond the limit: counted, not kept
    too_many boolean NOT NULL                       -- more accounts than one answer holds: only those of the platform's token were read
) WITH (fillfactor = 70);

-- An account that holds something, or did when a run last saw it.
CREATE TABLE holdings (
    id              uuid PRIMARY KEY,
    token_account   text NOT NULL UNIQUE CHECK (length(token_account) BETWEEN 32 AND 44),
    wallet          text NOT NULL REFERENCES holding_wallets,
    mint            text NOT NULL CHECK (length(mint) BETWEEN 32 AND 44),
    program         text NOT NULL CHECK (program IN ('token', 'token_2022')),
    decimals        integer NOT NULL CHECK (decimals BETWEEN 0 AND 255),
    amount          numeric(20) NOT NULL CHECK (amount >= 0), -- base units; a foreign token's may pass what a bigint holds
    present         boolean NOT NULL DEFAULT true,            -- the wallet still had it when it was last asked
    frozen          boolean NOT NULL DEFAULT false,
    delegate        text NOT NULL DEFAULT '',
    delegated       numeric(20) NOT NULL DEFAULT 0 CHECK (delegated >= 0),
    close_authority text NOT NULL DEFAULT '',
    slot            bigint NOT NULL,                          -- of the chain's state that it was read from
    first_seen_at   timestamptz NOT NULL DEFAULT now(),
    last_seen_at    timestamptz NOT NULL DEFAULT now(),       -- when it was last there
    changed_at      timestamptz,                              -- when another amount was found than before
    CHECK (present OR amount = 0),
    CHECK (delegate <> '' OR delegated = 0)
) WITH (fillfactor = 70);
CREATE INDEX holdings_by_wallet ON holdings (wallet);
CREATE INDEX holdings_by_mint ON holdings (mint);

-- How far a run has looked.
CREATE TABLE reconciliation_surveys (
    reconciliation_id uuid PRIMARY KEY REFERENCES reconciliations,
    wallets           bigint NOT NULL,
    asked             bigint NOT NULL,
    settlement        bigint NOT NULL,
    foreign_tokens    bigint NOT NULL,
    left_out          bigint NOT NULL,
    too_many          bigint NOT NULL
);

-- What of them is in suspense already.
CREATE INDEX deposits_suspense_by_account ON deposits (token_account, id) WHERE disposition = 'suspense';
CREATE INDEX ledger_entries_by_deposit ON ledger_entries (deposit_id) WHERE deposit_id IS NOT NULL;

-- +goose Down
DROP INDEX ledger_entries_by_deposit;
DROP INDEX deposits_suspense_by_account;
DROP TABLE reconciliation_surveys, holdings, holding_wallets;
