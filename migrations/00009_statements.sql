-- +goose Up
-- Statements: what was charged for each lease on each day, and the platform's fees over time.

-- The charges of a lease by UTC day of posting, written with the postings themselves: the sum of a period's rows is what the ledger
-- was posted in it, and a statement need not read a posting a second.
CREATE TABLE lease_days (
    lease_id  uuid NOT NULL REFERENCES leases,
    day       date NOT NULL,
    customer_org_id uuid NOT NULL REFERENCES organisations,
    owner_org_id    uuid NOT NULL REFERENCES organisations,
    charged   bigint NOT NULL CHECK (charged >= 0),
    fee       bigint NOT NULL CHECK (fee BETWEEN 0 AND charged),
    billed_ms bigint NOT NULL CHECK (billed_ms >= 0),
    PRIMARY KEY (lease_id, day)
) WITH (fillfactor = 70);
CREATE INDEX lease_days_by_customer ON lease_days (customer_org_id, day);
CREATE INDEX lease_days_by_owner ON lease_days (owner_org_id, day);

INSERT INTO lease_days (lease_id, day, customer_org_id, owner_org_id, charged, fee, billed_ms)
SELECT m.lease_id, m.day, l.customer_org_id, l.owner_org_id, m.charged, m.fee,
       -- The time was not noted: it is divided as the charges were, and the days come to the whole.
       floor(lc.billed_ms::numeric * sum(m.charged) OVER w / sum(m.charged) OVER (PARTITION BY m.lease_id))
     - floor(lc.billed_ms::numeric * (sum(m.charged) OVER w - m.charged) / sum(m.charged) OVER (PARTITION BY m.lease_id))
FROM (
    SELECT e.lease_id, (t.posted_at AT TIME ZONE 'UTC')::date AS day, sum(t.amount)::bigint AS charged,
           coalesce(sum(t.amount) FILTER (WHERE c.kind = 'platform_fees'), 0)::bigint AS fee
    FROM ledger_entries e
    JOIN ledger_transfers t ON t.entry_id = e.id
    JOIN ledger_accounts c ON c.id = t.credit_account
    WHERE e.kind = 'charge' AND e.lease_id IS NOT NULL
    GROUP BY 1, 2
) m
JOIN lease_charges lc ON lc.lease_id = m.lease_id
JOIN leases l ON l.id = m.lease_id
WINDOW w AS (PARTITION BY m.lease_id ORDER BY m.day);

-- The platform's share of what customers pay. The row in force is the latest one of the organisation, or of all where it has none; what
-- has been quoted and leased has frozen its own.
CREATE TABLE fee_schedule (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org_id     uuid REFERENCES organisations, -- the customer; NULL: all
    fee_bps    integer NOT NULL CHECK (fee_bps BETWEEN 0 AND 10000),
    valid_from timestamptz NOT NULL,
    note       text NOT NULL DEFAULT '' CHECK (length(note) <= 200),
    created_by uuid REFERENCES users,         -- NULL: the configured first row
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (org_id, valid_from)
);

-- A row never changes the past. Only the very first, which was in force before there was a schedule, begins earlier.
-- +goose StatementBegin
CREATE FUNCTION fee_schedule_check() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        RAISE EXCEPTION 'the fee schedule only grows: add a row that takes over'
            USING ERRCODE = 'restrict_violation', CONSTRAINT = 'fee_schedule_immutable';
    END IF;
    IF NEW.valid_from < now() AND (NEW.org_id IS NOT NULL OR EXISTS (SELECT 1 FROM fee_schedule)) THEN
        RAISE EXCEPTION 'a fee cannot change from % on: that has passed', NEW.valid_from
            USING ERRCODE = 'check_violation', CONSTRAINT = 'fee_schedule_past';
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER fee_schedule_grows BEFORE INSERT OR UPDATE OR DELETE ON fee_schedule
    FOR EACH ROW EXECUTE FUNCTION fee_schedule_check();
CREATE TRIGGER fee_schedule_keep BEFORE TRUNCATE ON fee_schedule
    FOR EACH STATEMENT EXECUTE FUNCTION fee_schedule_check();

-- The fee in force for a customer's bookings at a moment; NULL without any row.
-- +goose StatementBegin
CREATE FUNCTION platform_fee(customer uuid, at timestamptz) RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT f.fee_bps FROM fee_schedule f
    WHERE (f.org_id = customer OR f.org_id IS NULL) AND f.valid_from <= at
    ORDER BY f.org_id IS NULL, f.valid_from DESC LIMIT 1
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION platform_fee;
DROP TABLE fee_schedule;
DROP FUNCTION fee_schedule_check;
DROP TABLE lease_days;
