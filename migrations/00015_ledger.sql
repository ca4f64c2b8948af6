-- +goose Up
-- What each transfer costs, without counting characters and with one index less.

-- An account's checks are looked at whenever its balance moves, whatever else is unchanged; to count the characters of a mint took longer
-- there than all other checks together. Keys and mints are of single bytes.
ALTER TABLE ledger_accounts
    DROP CONSTRAINT ledger_accounts_mint_check,
    ADD CONSTRAINT ledger_accounts_mint_check CHECK (octet_length(mint) BETWEEN 32 AND 44);
ALTER TABLE ledger_entries
    DROP CONSTRAINT ledger_entries_key_check,
    DROP CONSTRAINT ledger_entries_kind_check,
    ADD CONSTRAINT ledger_entries_key_check CHECK (octet_length(key) BETWEEN 1 AND 200),
    ADD CONSTRAINT ledger_entries_kind_check CHECK (kind ~ '^[a-z][a-z_]+$' AND octet_length(kind) <= 40);

-- A transfer is known by its place in its entry, and found by that or by its place in an account's history. Its id is a name for the
-- outside, made at random; nothing looks it up.
ALTER TABLE ledger_transfers
    DROP CONSTRAINT ledger_transfers_pkey,
    DROP CONSTRAINT ledger_transfers_entry_id_ordinal_key,
    ADD PRIMARY KEY (entry_id, ordinal);

-- +goose Down
ALTER TABLE ledger_transfers
    DROP CONSTRAINT ledger_transfers_pkey,
    ADD PRIMARY KEY (id),
    ADD UNIQUE (entry_id, ordinal);
ALTER TABLE ledger_entries
    DROP CONSTRAINT ledger_entries_key_check,
    DROP CONSTRAINT ledger_entries_kind_check,
    ADD CONSTRAINT ledger_entries_key_check CHECK (length(key) BETWEEN 1 AND 200),
    ADD CONSTRAINT ledger_entries_kind_check CHECK (kind ~ '^[a-z][a-z_]+$' AND length(kind) <= 40);
ALTER TABLE ledger_accounts
    DROP CONSTRAINT ledger_accounts_mint_check,
    ADD CONSTRAINT ledger_accounts_mint_check CHECK (length(mint) BETWEEN 32 AND 44);
