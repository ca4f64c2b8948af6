-- +goose Up
-- Money: the double-entry ledger, what each lease has been charged, and what arrived on chain.

-- A balance is kept in the account's own sense: an asset grows by debits, everything else by credits. It is a projection of
-- the account's transfers: last_seq numbers them, and a trigger ties the pair (last_seq, balance) to the transfer that made it.
CREATE TABLE ledger_accounts (
    id         uuid PRIMARY KEY,
    kind       text NOT NULL CHECK (kind IN
                   ('chain_treasury', 'chain_deposits', 'chain_suspense',                              -- assets
                    'customer_available', 'customer_held', 'owner_payable', 'payout_in_flight', 'suspense', -- liabilities
                    'platform_fees',                                                                   -- income
                    'platform_capital')),                                                              -- equity
    org_id     uuid REFERENCES organisations,
    mint       text NOT NULL CHECK (length(mint) BETWEEN 32 AND 44),
    balance    bigint NOT NULL DEFAULT 0,
    last_seq   bigint NOT NULL DEFAULT 0 CHECK (last_seq >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (kind, org_id, mint),
    UNIQUE (id, mint),
    CONSTRAINT ledger_accounts_org CHECK ((org_id IS NOT NULL) = (kind IN
        ('chain_deposits', 'customer_available', 'customer_held', 'owner_payable', 'payout_in_flight'))),
    -- The treasury mirrors a chain whose facts may be recorded in another order than they happened, and capital may be used up.
    CONSTRAINT ledger_accounts_floor CHECK (balance >= 0 OR kind IN ('chain_treasury', 'platform_capital'))
) WITH (fillfactor = 50);

-- A customer's own wallet on chain, derived in the signer, and its token account of the platform's mint.
CREATE TABLE deposit_addresses (
    org_id        uuid PRIMARY KEY REFERENCES organisations,
    wallet        text NOT NULL UNIQUE,
    token_account text NOT NULL UNIQUE,
    created_at    timestamptz NOT NULL DEFAULT now()
);

-- Every token account that tokens may reach us on: those of the deposit wallets and of the treasury's wallet, of any mint.
CREATE TABLE watched_accounts (
    token_account text PRIMARY KEY,
    wallet        text NOT NULL,
    org_id        uuid REFERENCES organisations, -- NULL: the treasury's
    mint          text NOT NULL,
    program       text NOT NULL,                 -- which token program holds it
    decimals      integer NOT NULL CHECK (decimals BETWEEN 0 AND 255),
    cursor_slot   bigint NOT NULL DEFAULT 0,     -- finalized history up to here has been read; the next window overlaps it
    polled_at     timestamptz,
    found_at      timestamptz NOT NULL DEFAULT now()
);

-- An arrival of tokens: one row and one ledger entry for each chain transaction and token account.
CREATE TABLE deposits (
    id            uuid PRIMARY KEY,
    org_id        uuid REFERENCES organisations, -- NULL: arrived at the treasury's wallet
    signature     text NOT NULL,
    token_account text NOT NULL REFERENCES watched_accounts,
    mint          text NOT NULL,
    decimals      integer NOT NULL,
    amount        numeric(20) NOT NULL CHECK (amount > 0), -- a foreign token's may pass what a bigint, and so the ledger, holds
    slot          bigint NOT NULL,
    disposition   text NOT NULL CHECK (disposition IN ('credited', 'suspense', 'capital')),
    reason        text NOT NULL DEFAULT '',      -- why it is in suspense, a sentence
    block_time    timestamptz,
    found_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (signature, token_account),
    CHECK ((disposition = 'suspense') = (reason <> '')),
    CHECK (disposition <> 'credited' OR org_id IS NOT NULL),
    CHECK (disposition <> 'capital' OR org_id IS NULL)
);
CREATE INDEX deposits_by_org ON deposits (org_id, id);
CREATE INDEX deposits_in_suspense ON deposits (id) WHERE disposition = 'suspense';

CREATE TABLE ledger_entries (
    id         uuid PRIMARY KEY,
    key        text NOT NULL UNIQUE CHECK (length(key) BETWEEN 1 AND 200), -- idempotency
    input_hash bytea NOT NULL CHECK (length(input_hash) = 32),
    kind       text NOT NULL CHECK (kind ~ '^[a-z][a-z_]{1,39}$'),
    mint       text NOT NULL,
    booking_id uuid REFERENCES bookings,
    cluster_id uuid REFERENCES clusters,
    lease_id   uuid REFERENCES leases,
    deposit_id uuid REFERENCES deposits,
    batch_id   uuid,
    signature  text,          -- of the chain transaction that this entry records
    memo       text NOT NULL DEFAULT '' CHECK (length(memo) <= 500),
    posted_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ledger_entries_by_cluster ON ledger_entries (cluster_id) WHERE cluster_id IS NOT NULL;
CREATE INDEX ledger_entries_by_signature ON ledger_entries (signature) WHERE signature IS NOT NULL;
CREATE INDEX ledger_entries_by_batch ON ledger_entries (batch_id) WHERE batch_id IS NOT NULL;

CREATE TABLE ledger_transfers (
    id             uuid PRIMARY KEY,
    entry_id       uuid NOT NULL REFERENCES ledger_entries,
    ordinal        integer NOT NULL CHECK (ordinal >= 0),
    mint           text NOT NULL,
    debit_account  uuid NOT NULL,
    credit_account uuid NOT NULL,
    amount         bigint NOT NULL CHECK (amount > 0),
    debit_seq      bigint NOT NULL CHECK (debit_seq > 0),   -- place in the debited account's history
    credit_seq     bigint NOT NULL CHECK (credit_seq > 0),
    debit_balance  bigint NOT NULL,                         -- of the debited account after this transfer
    credit_balance bigint NOT NULL,
    posted_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (entry_id, ordinal),
    UNIQUE (debit_account, debit_seq),
    UNIQUE (credit_account, credit_seq),
    CHECK (debit_account <> credit_account),
    -- Both sides are of the transfer's mint: currencies never mix.
    FOREIGN KEY (debit_account, mint) REFERENCES ledger_accounts (id, mint),
    FOREIGN KEY (credit_account, mint) REFERENCES ledger_accounts (id, mint)
);

-- +goose StatementBegin
CREATE FUNCTION ledger_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is immutable: post a correcting entry instead', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', CONSTRAINT = 'ledger_immutable';
END $$;
-- +goose StatementEnd
CREATE TRIGGER ledger_entries_immutable BEFORE UPDATE OR DELETE ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_entries_keep BEFORE TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_transfers_immutable BEFORE UPDATE OR DELETE ON ledger_transfers
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_transfers_keep BEFORE TRUNCATE ON ledger_transfers
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();

-- An account's balance changes only together with the transfer that explains it.
-- +goose StatementBegin
CREATE FUNCTION ledger_check_projection() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR (NEW.id, NEW.kind, NEW.org_id, NEW.mint) IS DISTINCT FROM (OLD.id, OLD.kind, OLD.org_id, OLD.mint)
        OR NEW.last_seq <= OLD.last_seq
        OR NOT EXISTS (SELECT 1 FROM ledger_transfers t
                       WHERE t.debit_account = NEW.id AND t.debit_seq = NEW.last_seq AND t.debit_balance = NEW.balance
                       UNION ALL
                       SELECT 1 FROM ledger_transfers t
                       WHERE t.credit_account = NEW.id AND t.credit_seq = NEW.last_seq AND t.credit_balance = NEW.balance)
    THEN
        RAISE EXCEPTION 'ledger account % changes only by posting', OLD.id
            USING ERRCODE = 'restrict_violation', CONSTRAINT = 'ledger_immutable';
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER ledger_accounts_projection AFTER UPDATE OR DELETE ON ledger_accounts
    FOR EACH ROW EXECUTE FUNCTION ledger_check_projection();

-- ledger_problems replays every transfer and names each account and mint that disagrees; no rows is a sound ledger.
-- +goose StatementBegin
CREATE FUNCTION ledger_problems() RETURNS TABLE (account_id uuid, mint text, problem text) LANGUAGE sql STABLE AS $$
    WITH postings AS (
        SELECT t.debit_account AS account_id, t.debit_seq AS seq, t.debit_balance AS stored,
               CASE WHEN a.kind LIKE 'chain\_%' THEN t.amount ELSE -t.amount END AS delta
        FROM ledger_transfers t JOIN ledger_accounts a ON a.id = t.debit_account
        UNION ALL
        SELECT t.credit_account, t.credit_seq, t.credit_balance,
               CASE WHEN a.kind LIKE 'chain\_%' THEN -t.amount ELSE t.amount END
        FROM ledger_transfers t JOIN ledger_accounts a ON a.id = t.credit_account
    ), replayed AS (
        SELECT p.*, sum(p.delta) OVER w AS balance, row_number() OVER w AS place
        FROM postings p WINDOW w AS (PARTITION BY p.account_id ORDER BY p.seq)
    ), totals AS (
        SELECT r.account_id, sum(r.delta) AS balance, max(r.seq) AS last_seq FROM replayed r GROUP BY r.account_id
    )
    SELECT r.account_id, a.mint,
           format('transfer %s of %s leaves %s, its record says %s', r.seq, a.kind, r.balance, r.stored)
    FROM replayed r JOIN ledger_accounts a ON a.id = r.account_id
    WHERE r.balance <> r.stored OR r.place <> r.seq
    UNION ALL
    SELECT a.id, a.mint, format('%s has balance %s after %s transfers, replay gives %s after %s',
                                a.kind, a.balance, a.last_seq, coalesce(t.balance, 0), coalesce(t.last_seq, 0))
    FROM ledger_accounts a LEFT JOIN totals t ON t.account_id = a.id
    WHERE a.balance <> coalesce(t.balance, 0) OR a.last_seq <> coalesce(t.last_seq, 0)
    UNION ALL
    SELECT NULL, a.mint, format('all accounts together come to %s instead of zero',
                                sum(CASE WHEN a.kind LIKE 'chain\_%' THEN a.balance ELSE -a.balance END))
    FROM ledger_accounts a GROUP BY a.mint
    HAVING sum(CASE WHEN a.kind LIKE 'chain\_%' THEN a.balance ELSE -a.balance END) <> 0
    UNION ALL
    SELECT NULL, e.mint, format('entry %s (%s) has no transfers', e.id, e.key)
    FROM ledger_entries e WHERE NOT EXISTS (SELECT 1 FROM ledger_transfers t WHERE t.entry_id = e.id)
$$;
-- +goose StatementEnd

-- What has been posted for each lease so far; the next posting is the difference to it.
CREATE TABLE lease_charges (
    lease_id   uuid PRIMARY KEY REFERENCES leases,
    cluster_id uuid NOT NULL REFERENCES clusters,
    charged    bigint NOT NULL CHECK (charged >= 0),
    fee        bigint NOT NULL CHECK (fee BETWEEN 0 AND charged),
    billed_ms  bigint NOT NULL CHECK (billed_ms >= 0),
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);
CREATE INDEX lease_charges_by_cluster ON lease_charges (cluster_id);

-- +goose Down
DROP FUNCTION ledger_problems;
DROP TABLE lease_charges, ledger_transfers, ledger_entries, deposits, watched_accounts, deposit_addresses, ledger_accounts;
DROP FUNCTION ledger_check_projection, ledger_refuse_change;
