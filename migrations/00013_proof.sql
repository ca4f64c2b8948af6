-- +goose Up
-- Proof for anyone: each payout batch has a manifest, the usage that its amounts come from, whose Merkle root is in the memo of its
-- transaction. settlement/proof describes the form.

-- Manifests form a chain: each has the next number and names the root of the one before it.
CREATE TABLE manifests (
    batch_id  uuid PRIMARY KEY REFERENCES payout_batches,
    sequence  bigint NOT NULL UNIQUE CHECK (sequence > 0),
    root      bytea NOT NULL UNIQUE CHECK (length(root) = 32),
    previous  bytea UNIQUE REFERENCES manifests (root), -- NULL: the first
    document  text NOT NULL,                            -- the canonical JSON, as it was hashed
    sealed_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((sequence = 1) = (previous IS NULL))
);
CREATE INDEX manifests_by_time ON manifests (sealed_at);

-- How far in the history of its payee's earnings a payout goes: the next one begins behind it, unless this one's batch paid nothing.
CREATE TABLE manifest_payouts (
    payout_id    uuid PRIMARY KEY REFERENCES payouts,
    batch_id     uuid NOT NULL REFERENCES manifests,
    ordinal      integer NOT NULL CHECK (ordinal >= 0), -- place in the manifest
    payee_org_id uuid NOT NULL REFERENCES organisations,
    through_seq  bigint NOT NULL CHECK (through_seq >= 0), -- of the payee's earnings account
    carried      bigint NOT NULL,                          -- of what it lists, how much is left for the next
    UNIQUE (batch_id, ordinal)
);
CREATE INDEX manifest_payouts_by_payee ON manifest_payouts (payee_org_id, through_seq);

-- +goose StatementBegin
CREATE FUNCTION manifest_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is immutable: its root is in a transaction''s memo', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', CONSTRAINT = 'manifest_immutable';
END $$;
-- +goose StatementEnd
CREATE TRIGGER manifests_immutable BEFORE UPDATE OR DELETE ON manifests
    FOR EACH ROW EXECUTE FUNCTION manifest_refuse_change();
CREATE TRIGGER manifests_keep BEFORE TRUNCATE ON manifests
    FOR EACH STATEMENT EXECUTE FUNCTION manifest_refuse_change();
CREATE TRIGGER manifest_payouts_immutable BEFORE UPDATE OR DELETE ON manifest_payouts
    FOR EACH ROW EXECUTE FUNCTION manifest_refuse_change();
CREATE TRIGGER manifest_payouts_keep BEFORE TRUNCATE ON manifest_payouts
    FOR EACH STATEMENT EXECUTE FUNCTION manifest_refuse_change();

-- What was posted to an earnings account behind a place in its history, payouts left out.
-- +goose StatementBegin
CREATE FUNCTION earned(account uuid, after bigint)
    RETURNS TABLE (seq bigint, change bigint, entry_id uuid, posted_at timestamptz) LANGUAGE sql STABLE AS $$
    SELECT s.seq, s.change, s.entry_id, s.posted_at
    FROM (
        SELECT t.credit_seq AS seq, t.amount AS change, t.entry_id, t.posted_at
        FROM ledger_transfers t WHERE t.credit_account = account AND t.credit_seq > after
        UNION ALL
        SELECT t.debit_seq, -t.amount, t.entry_id, t.posted_at
        FROM ledger_transfers t WHERE t.debit_account = account AND t.debit_seq > after
    ) s JOIN ledger_entries e ON e.id = s.entry_id
    WHERE e.kind NOT IN ('payout_reserve', 'payout_return')
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION earned;
DROP TABLE manifest_payouts, manifests;
DROP FUNCTION manifest_refuse_change;
