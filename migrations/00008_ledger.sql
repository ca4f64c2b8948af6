-- +goose Up
-- The ledger's hot path, pending transfers, and balances at any time.

-- Asset accounts grow by debits, all others by credits.
-- +goose StatementBegin
CREATE FUNCTION ledger_is_asset(kind text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT kind LIKE 'chain\_%' $$;
-- +goose StatementEnd

DROP TRIGGER ledger_accounts_projection ON ledger_accounts;
DROP FUNCTION ledger_check_projection;

-- What pending transfers may yet take from an account is set aside: available is balance - reserved. Both are projections, of the
-- account's transfers and of its reservations, and each counts the rows that explain it. changed_at is the time of the newest.
ALTER TABLE ledger_accounts
    ADD COLUMN reserved bigint NOT NULL DEFAULT 0,
    ADD COLUMN reserved_seq bigint NOT NULL DEFAULT 0,
    ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now(),
    ADD CONSTRAINT ledger_accounts_reserved CHECK (reserved >= 0 AND reserved_seq >= 0),
    DROP CONSTRAINT ledger_accounts_floor,
    ADD CONSTRAINT ledger_accounts_floor CHECK (balance >= reserved OR kind IN ('chain_treasury', 'platform_capital'));
UPDATE ledger_accounts a SET changed_at = greatest(
    (SELECT max(t.posted_at) FROM ledger_transfers t WHERE t.debit_account = a.id),
    (SELECT max(t.posted_at) FROM ledger_transfers t WHERE t.credit_account = a.id), a.created_at);

-- An entry that reserves instead of moving. Its end is a settlement; neither changes.
CREATE TABLE ledger_pendings (
    entry_id       uuid PRIMARY KEY REFERENCES ledger_entries,
    mint           text NOT NULL,
    debit_account  uuid NOT NULL,
    credit_account uuid NOT NULL,
    amount         bigint NOT NULL CHECK (amount > 0),
    expires_at     timestamptz, -- NULL: never
    pended_at      timestamptz NOT NULL,
    CHECK (debit_account <> credit_account),
    CHECK (expires_at > pended_at),
    FOREIGN KEY (debit_account, mint) REFERENCES ledger_accounts (id, mint),
    FOREIGN KEY (credit_account, mint) REFERENCES ledger_accounts (id, mint)
);

-- A pending transfer ends once: its key is the primary key.
CREATE TABLE ledger_settlements (
    pending_id uuid PRIMARY KEY REFERENCES ledger_pendings,
    entry_id   uuid NOT NULL UNIQUE REFERENCES ledger_entries,
    outcome    text NOT NULL CHECK (outcome IN ('posted', 'voided', 'expired')),
    amount     bigint NOT NULL, -- what was posted; the rest of the pending amount is free again
    settled_at timestamptz NOT NULL,
    CHECK ((outcome = 'posted') = (amount > 0)),
    CHECK (amount >= 0)
);

-- Each change of what an account has reserved, numbered as transfers are.
CREATE TABLE ledger_reservations (
    account_id uuid NOT NULL REFERENCES ledger_accounts,
    seq        bigint NOT NULL CHECK (seq > 0),
    pending_id uuid NOT NULL REFERENCES ledger_pendings,
    change     bigint NOT NULL CHECK (change <> 0), -- the pending amount, negative when it ends
    reserved   bigint NOT NULL CHECK (reserved >= 0), -- after this change
    PRIMARY KEY (account_id, seq)
);
CREATE UNIQUE INDEX ledger_reservations_once ON ledger_reservations (pending_id, account_id, (change > 0));

-- The pending transfers without an end, for those that look for them. A row goes when its settlement comes.
CREATE TABLE ledger_open_pendings (
    entry_id   uuid PRIMARY KEY REFERENCES ledger_pendings,
    expires_at timestamptz
);
CREATE INDEX ledger_open_pendings_due ON ledger_open_pendings (expires_at) WHERE expires_at IS NOT NULL;

-- A settlement moves exactly what it says, at most what was pending, and only in time. What it moves comes after it in its transaction,
-- because the reservation has to go first: so this is looked at in the end.
-- +goose StatementBegin
CREATE FUNCTION ledger_check_settlement() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    pending   ledger_pendings;
    transfers bigint;
    moved     bigint;
BEGIN
    SELECT * INTO pending FROM ledger_pendings p WHERE p.entry_id = NEW.pending_id;
    SELECT count(*), coalesce(sum(t.amount) FILTER (
        WHERE (t.debit_account, t.credit_account, t.mint) = (pending.debit_account, pending.credit_account, pending.mint)), 0)
    INTO transfers, moved FROM ledger_transfers t WHERE t.entry_id = NEW.entry_id;
    IF NEW.amount > pending.amount OR NEW.amount <> moved OR transfers <> (NEW.outcome = 'posted')::integer
        OR (NEW.outcome = 'posted' AND pending.expires_at <= NEW.settled_at)
        OR (NEW.outcome = 'expired' AND (pending.expires_at IS NULL OR pending.expires_at > NEW.settled_at))
    THEN
        RAISE EXCEPTION 'the end of pending transfer % does not follow from it', NEW.pending_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_settlement';
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE CONSTRAINT TRIGGER ledger_settlements_follow AFTER INSERT ON ledger_settlements
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger_check_settlement();

-- A reservation is the pending amount, on a side that the transfer would lower; it ends when there is a settlement, and only then.
-- +goose StatementBegin
CREATE FUNCTION ledger_check_reservation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM ledger_pendings p JOIN ledger_accounts a ON a.id = NEW.account_id
        WHERE p.entry_id = NEW.pending_id AND abs(NEW.change) = p.amount
            AND a.id = CASE WHEN ledger_is_asset(a.kind) THEN p.credit_account ELSE p.debit_account END)
        OR (NEW.change < 0) <> EXISTS (SELECT 1 FROM ledger_settlements s WHERE s.pending_id = NEW.pending_id)
    THEN
        RAISE EXCEPTION 'a reservation on account % does not follow from its pending transfer', NEW.account_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_reservation';
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER ledger_reservations_follow BEFORE INSERT ON ledger_reservations
    FOR EACH ROW EXECUTE FUNCTION ledger_check_reservation();

CREATE TRIGGER ledger_pendings_immutable BEFORE UPDATE OR DELETE ON ledger_pendings
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_pendings_keep BEFORE TRUNCATE ON ledger_pendings
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_settlements_immutable BEFORE UPDATE OR DELETE ON ledger_settlements
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_settlements_keep BEFORE TRUNCATE ON ledger_settlements
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_reservations_immutable BEFORE UPDATE OR DELETE ON ledger_reservations
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_reservations_keep BEFORE TRUNCATE ON ledger_reservations
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();

-- Balances and reserved amounts are the work of the triggers below alone: no statement of a client's changes an account.
CREATE TRIGGER ledger_accounts_projection BEFORE UPDATE ON ledger_accounts
    FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_accounts_begin_empty BEFORE INSERT ON ledger_accounts
    FOR EACH ROW WHEN (NEW.balance <> 0 OR NEW.last_seq <> 0 OR NEW.reserved <> 0 OR NEW.reserved_seq <> 0)
    EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_accounts_immutable BEFORE DELETE ON ledger_accounts
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_accounts_keep BEFORE TRUNCATE ON ledger_accounts
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();

-- What entries refer to exists, looked up once a statement; nothing of it is ever deleted. As foreign keys, the four cost a third of the
-- insertion even where they are NULL. The bounded repetition in the old check of the kind was another fifth.
ALTER TABLE ledger_entries
    DROP CONSTRAINT ledger_entries_booking_id_fkey, DROP CONSTRAINT ledger_entries_cluster_id_fkey,
    DROP CONSTRAINT ledger_entries_lease_id_fkey, DROP CONSTRAINT ledger_entries_deposit_id_fkey,
    DROP CONSTRAINT ledger_entries_kind_check,
    ADD CONSTRAINT ledger_entries_kind_check CHECK (kind ~ '^[a-z][a-z_]+$' AND length(kind) <= 40);
-- +goose StatementBegin
CREATE FUNCTION ledger_check_entries() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    the_bookings uuid[];
    the_clusters uuid[];
    the_leases uuid[];
    the_deposits uuid[];
BEGIN
    SELECT array_agg(DISTINCT e.booking_id) FILTER (WHERE e.booking_id IS NOT NULL),
           array_agg(DISTINCT e.cluster_id) FILTER (WHERE e.cluster_id IS NOT NULL),
           array_agg(DISTINCT e.lease_id) FILTER (WHERE e.lease_id IS NOT NULL),
           array_agg(DISTINCT e.deposit_id) FILTER (WHERE e.deposit_id IS NOT NULL)
    INTO the_bookings, the_clusters, the_leases, the_deposits FROM new_rows e;
    IF (the_bookings IS NOT NULL AND cardinality(the_bookings) <> (SELECT count(*) FROM bookings b WHERE b.id = ANY (the_bookings)))
        OR (the_clusters IS NOT NULL AND cardinality(the_clusters) <> (SELECT count(*) FROM clusters c WHERE c.id = ANY (the_clusters)))
        OR (the_leases IS NOT NULL AND cardinality(the_leases) <> (SELECT count(*) FROM leases l WHERE l.id = ANY (the_leases)))
        OR (the_deposits IS NOT NULL AND cardinality(the_deposits) <> (SELECT count(*) FROM deposits d WHERE d.id = ANY (the_deposits)))
    THEN
        RAISE EXCEPTION 'a ledger entry refers to what is not there'
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'ledger_entries_references';
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER ledger_entries_references AFTER INSERT ON ledger_entries
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_check_entries();

-- Transfers move the balances of their accounts, each account once for all transfers of a statement, which a group commit makes a thousand
-- of: both sides by the same amount, so that all accounts together stay at zero, and only where the transfers go on from what is there,
-- numbers, times and running balance. Their entries and accounts exist and are of their mint. Foreign keys would say the latter row by row,
-- and lock the hot account for each; entries and accounts are never deleted and never change their mint, so one look is enough. An array of
-- ids is looked up in the order of the index, which is that of ids made one after another.
-- The planner is kept to looking each account up: it plans this once a session, perhaps while the tables are empty, and would then read all
-- accounts for every statement.
ALTER TABLE ledger_transfers
    DROP CONSTRAINT ledger_transfers_entry_id_fkey,
    DROP CONSTRAINT ledger_transfers_debit_account_mint_fkey,
    DROP CONSTRAINT ledger_transfers_credit_account_mint_fkey;
-- +goose StatementBegin
CREATE FUNCTION ledger_project_transfers() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    only_mint text;
    mints     bigint;
    entries   uuid[];
    astray    bigint;
BEGIN
    SELECT min(t.mint), count(DISTINCT t.mint), array_agg(DISTINCT t.entry_id) INTO only_mint, mints, entries FROM new_rows t;
    IF entries IS NULL THEN
        RETURN NULL; -- no rows
    END IF;
    IF mints > 1 OR cardinality(entries) <> (SELECT count(*) FROM ledger_entries e WHERE e.id = ANY (entries) AND e.mint = only_mint) THEN
        RAISE EXCEPTION 'a transfer is of an entry of its own mint'
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'ledger_one_mint';
    END IF;
    WITH moved AS MATERIALIZED (
        SELECT s.id, count(*) AS transfers, min(s.seq) AS first, max(ARRAY[s.seq, s.balance]) AS last, sum(s.debit) AS debits,
               min(s.posted_at) AS earliest, max(s.posted_at) AS latest
        FROM (SELECT t.debit_account AS id, t.debit_seq AS seq, t.debit_balance AS balance, t.amount AS debit, t.posted_at FROM new_rows t
              UNION ALL
              SELECT t.credit_account, t.credit_seq, t.credit_balance, -t.amount, t.posted_at FROM new_rows t) s
        GROUP BY s.id
    ), projected AS (
        UPDATE ledger_accounts a SET balance = m.last[2], last_seq = m.last[1], changed_at = m.latest
        FROM moved m
        WHERE a.id = m.id AND a.mint = only_mint
          AND m.first = a.last_seq + 1 AND m.last[1] = a.last_seq + m.transfers
          AND m.last[2] = a.balance + CASE WHEN ledger_is_asset(a.kind) THEN m.debits ELSE -m.debits END
          AND m.earliest >= a.changed_at
        RETURNING a.id
    )
    SELECT (SELECT count(*) FROM moved) - (SELECT count(*) FROM projected) INTO astray;
    IF astray <> 0 THEN
        RAISE EXCEPTION '% accounts are not there, are of another mint, or are not what their transfers go on from', astray
            USING ERRCODE = 'restrict_violation', CONSTRAINT = 'ledger_projection';
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER ledger_transfers_project AFTER INSERT ON ledger_transfers
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_project_transfers();

-- The same for what is reserved.
-- +goose StatementBegin
CREATE FUNCTION ledger_project_reservations() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    astray bigint;
BEGIN
    WITH moved AS MATERIALIZED (
        SELECT r.account_id AS id, count(*) AS changes, min(r.seq) AS first, max(ARRAY[r.seq, r.reserved]) AS last, sum(r.change) AS change
        FROM new_rows r GROUP BY r.account_id
    ), projected AS (
        UPDATE ledger_accounts a SET reserved = m.last[2], reserved_seq = m.last[1]
        FROM moved m
        WHERE a.id = m.id AND m.first = a.reserved_seq + 1 AND m.last[1] = a.reserved_seq + m.changes AND m.last[2] = a.reserved + m.change
        RETURNING a.id
    )
    SELECT (SELECT count(*) FROM moved) - (SELECT count(*) FROM projected) INTO astray;
    IF astray <> 0 THEN
        RAISE EXCEPTION '% accounts are not what their reservations go on from', astray
            USING ERRCODE = 'restrict_violation', CONSTRAINT = 'ledger_projection';
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER ledger_reservations_project AFTER INSERT ON ledger_reservations
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_project_reservations();

-- The number of an account's last transfer at or before a time. Each transfer's time is read under its accounts' locks and is never before
-- the account's last, so the numbers are in the order of the times and a few dozen looks are enough for any length of history.
-- +goose StatementBegin
CREATE FUNCTION ledger_seq_at(account uuid, at timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
DECLARE
    low    bigint := 0; -- posted by then, or none
    high   bigint;      -- what comes after it is later
    middle bigint;
    posted timestamptz;
BEGIN
    SELECT a.last_seq INTO high FROM ledger_accounts a WHERE a.id = account;
    WHILE low < high LOOP
        middle := low + (high - low + 1) / 2;
        SELECT t.posted_at INTO STRICT posted FROM (
            SELECT d.posted_at FROM ledger_transfers d WHERE d.debit_account = account AND d.debit_seq = middle
            UNION ALL
            SELECT c.posted_at FROM ledger_transfers c WHERE c.credit_account = account AND c.credit_seq = middle) t;
        IF posted <= at THEN
            low := middle;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
    RETURN low;
END $$;
-- +goose StatementEnd

-- ledger_problems replays every transfer and reservation and names what disagrees; no rows is a sound ledger.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION ledger_problems() RETURNS TABLE (account_id uuid, mint text, problem text) LANGUAGE sql STABLE AS $$
    WITH postings AS (
        SELECT t.debit_account AS account_id, t.debit_seq AS seq, t.debit_balance AS stored,
               CASE WHEN ledger_is_asset(a.kind) THEN t.amount ELSE -t.amount END AS delta
        FROM ledger_transfers t JOIN ledger_accounts a ON a.id = t.debit_account
        UNION ALL
        SELECT t.credit_account, t.credit_seq, t.credit_balance,
               CASE WHEN ledger_is_asset(a.kind) THEN -t.amount ELSE t.amount END
        FROM ledger_transfers t JOIN ledger_accounts a ON a.id = t.credit_account
    ), replayed AS (
        SELECT p.*, sum(p.delta) OVER w AS balance, row_number() OVER w AS place
        FROM postings p WINDOW w AS (PARTITION BY p.account_id ORDER BY p.seq)
    ), totals AS (
        SELECT r.account_id, sum(r.delta) AS balance, max(r.seq) AS last_seq FROM replayed r GROUP BY r.account_id
    ), reservations AS (
        SELECT r.*, sum(r.change) OVER w AS total, row_number() OVER w AS place
        FROM ledger_reservations r WINDOW w AS (PARTITION BY r.account_id ORDER BY r.seq)
    ), open AS (
        SELECT p.* FROM ledger_pendings p WHERE NOT EXISTS (SELECT 1 FROM ledger_settlements s WHERE s.pending_id = p.entry_id)
    ), due AS ( -- what each account must have reserved, and by how many changes
        SELECT a.id AS account_id, sum(p.amount) FILTER (WHERE s.pending_id IS NULL) AS reserved, count(*) + count(s.pending_id) AS last_seq
        FROM ledger_pendings p
        JOIN ledger_accounts a ON a.id IN (p.debit_account, p.credit_account)
            AND a.id = CASE WHEN ledger_is_asset(a.kind) THEN p.credit_account ELSE p.debit_account END
        LEFT JOIN ledger_settlements s ON s.pending_id = p.entry_id
        GROUP BY a.id
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
                                sum(CASE WHEN ledger_is_asset(a.kind) THEN a.balance ELSE -a.balance END))
    FROM ledger_accounts a GROUP BY a.mint
    HAVING sum(CASE WHEN ledger_is_asset(a.kind) THEN a.balance ELSE -a.balance END) <> 0
    UNION ALL
    SELECT NULL, t.mint, format('transfer %s is of an entry or an account that is not there, or of another mint', t.id)
    FROM ledger_transfers t
    LEFT JOIN ledger_entries e ON e.id = t.entry_id AND e.mint = t.mint
    LEFT JOIN ledger_accounts d ON d.id = t.debit_account AND d.mint = t.mint
    LEFT JOIN ledger_accounts c ON c.id = t.credit_account AND c.mint = t.mint
    WHERE e.id IS NULL OR d.id IS NULL OR c.id IS NULL
    UNION ALL
    SELECT NULL, e.mint, format('entry %s (%s) has no transfers', e.id, e.key)
    FROM ledger_entries e
    WHERE NOT EXISTS (SELECT 1 FROM ledger_transfers t WHERE t.entry_id = e.id)
      AND NOT EXISTS (SELECT 1 FROM ledger_pendings p WHERE p.entry_id = e.id)
      AND NOT EXISTS (SELECT 1 FROM ledger_settlements s WHERE s.entry_id = e.id AND s.outcome <> 'posted')
    UNION ALL
    SELECT NULL, e.mint, format('entry %s (%s) is pending and has transfers', e.id, e.key)
    FROM ledger_pendings p JOIN ledger_entries e ON e.id = p.entry_id
    WHERE EXISTS (SELECT 1 FROM ledger_transfers t WHERE t.entry_id = p.entry_id)
    UNION ALL
    SELECT r.account_id, a.mint, format('reservation %s of %s leaves %s, its record says %s', r.seq, a.kind, r.total, r.reserved)
    FROM reservations r JOIN ledger_accounts a ON a.id = r.account_id
    WHERE r.total <> r.reserved OR r.place <> r.seq
    UNION ALL
    SELECT a.id, a.mint, format('%s has %s reserved after %s changes, its pending transfers come to %s after %s',
                                a.kind, a.reserved, a.reserved_seq, coalesce(d.reserved, 0), coalesce(d.last_seq, 0))
    FROM ledger_accounts a LEFT JOIN due d ON d.account_id = a.id
    WHERE a.reserved <> coalesce(d.reserved, 0) OR a.reserved_seq <> coalesce(d.last_seq, 0)
    UNION ALL
    SELECT NULL, p.mint, format('the %s end of pending entry %s comes to %s of %s, its transfers to %s',
                                s.outcome, s.pending_id, s.amount, p.amount, coalesce(m.amount, 0))
    FROM ledger_settlements s JOIN ledger_pendings p ON p.entry_id = s.pending_id
    LEFT JOIN LATERAL (SELECT sum(t.amount) AS amount, bool_and(t.debit_account = p.debit_account AND t.credit_account = p.credit_account) AS same
                       FROM ledger_transfers t WHERE t.entry_id = s.entry_id) m ON true
    WHERE s.amount <> coalesce(m.amount, 0) OR s.amount > p.amount OR NOT coalesce(m.same, true)
    UNION ALL
    SELECT NULL, coalesce(p.mint, ''), format('pending entry %s is listed as open: %s, and has no end: %s',
                                coalesce(p.entry_id, l.entry_id), l.entry_id IS NOT NULL, p.entry_id IS NOT NULL)
    FROM open p FULL JOIN ledger_open_pendings l ON l.entry_id = p.entry_id
    WHERE p.entry_id IS NULL OR l.entry_id IS NULL
$$;
-- +goose StatementEnd

-- +goose Down
-- The older schema cannot say what is reserved, so there is no way back once something has been.
-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM ledger_pendings) THEN
        RAISE EXCEPTION 'the ledger has pending transfers, which the older schema cannot hold';
    END IF;
END $$;
-- +goose StatementEnd
DROP TRIGGER ledger_accounts_projection ON ledger_accounts;
DROP TRIGGER ledger_accounts_begin_empty ON ledger_accounts;
DROP TRIGGER ledger_accounts_immutable ON ledger_accounts;
DROP TRIGGER ledger_accounts_keep ON ledger_accounts;
DROP TRIGGER ledger_transfers_project ON ledger_transfers;
DROP TRIGGER ledger_entries_references ON ledger_entries;
DROP FUNCTION ledger_seq_at, ledger_project_transfers, ledger_check_entries;
DROP TABLE ledger_open_pendings, ledger_reservations, ledger_settlements, ledger_pendings;
DROP FUNCTION ledger_check_settlement, ledger_check_reservation, ledger_project_reservations;
ALTER TABLE ledger_entries
    ADD CONSTRAINT ledger_entries_booking_id_fkey FOREIGN KEY (booking_id) REFERENCES bookings,
    ADD CONSTRAINT ledger_entries_cluster_id_fkey FOREIGN KEY (cluster_id) REFERENCES clusters,
    ADD CONSTRAINT ledger_entries_lease_id_fkey FOREIGN KEY (lease_id) REFERENCES leases,
    ADD CONSTRAINT ledger_entries_deposit_id_fkey FOREIGN KEY (deposit_id) REFERENCES deposits;
ALTER TABLE ledger_transfers
    ADD CONSTRAINT ledger_transfers_entry_id_fkey FOREIGN KEY (entry_id) REFERENCES ledger_entries,
    ADD CONSTRAINT ledger_transfers_debit_account_mint_fkey FOREIGN KEY (debit_account, mint) REFERENCES ledger_accounts (id, mint),
    ADD CONSTRAINT ledger_transfers_credit_account_mint_fkey FOREIGN KEY (credit_account, mint) REFERENCES ledger_accounts (id, mint);
ALTER TABLE ledger_accounts
    DROP CONSTRAINT ledger_accounts_floor,
    DROP COLUMN reserved, DROP COLUMN reserved_seq, DROP COLUMN changed_at,
    ADD CONSTRAINT ledger_accounts_floor CHECK (balance >= 0 OR kind IN ('chain_treasury', 'platform_capital'));
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
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION ledger_problems() RETURNS TABLE (account_id uuid, mint text, problem text) LANGUAGE sql STABLE AS $$
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
DROP FUNCTION ledger_is_asset;
