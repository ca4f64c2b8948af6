-- +goose Up
-- Refunds: tokens in suspense go back to the wallet that sent them, by the payout path.

ALTER TABLE deposits
    ADD COLUMN sender text CHECK (length(sender) BETWEEN 32 AND 44); -- the wallet; NULL: issued, sent by several, or not noted when it came

ALTER TABLE suspense_decisions
    DROP CONSTRAINT suspense_decisions_outcome_check,
    ADD CONSTRAINT suspense_decisions_outcome_check CHECK (outcome IN ('credited', 'kept', 'refunded', 'held')),
    ADD COLUMN refund_id uuid UNIQUE REFERENCES withdrawals,
    ADD CONSTRAINT suspense_decisions_refund CHECK ((outcome = 'refunded') = (refund_id IS NOT NULL));

-- A refund that was given up before it went out has moved nothing: its tokens are in suspense again, and may be decided about anew.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION suspense_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND EXISTS (SELECT 1 FROM withdrawals w WHERE w.id = OLD.refund_id AND w.state = 'cancelled') THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'the decision on % has moved tokens: post a correcting entry instead', OLD.deposit_id
        USING ERRCODE = 'restrict_violation', CONSTRAINT = 'suspense_final';
END $$;
-- +goose StatementEnd

-- +goose Down
ALTER TABLE suspense_decisions
    DROP CONSTRAINT suspense_decisions_refund,
    DROP CONSTRAINT suspense_decisions_outcome_check,
    ADD CONSTRAINT suspense_decisions_outcome_check CHECK (outcome IN ('credited', 'kept', 'held')),
    DROP COLUMN refund_id;
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION suspense_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the decision on % has moved tokens: post a correcting entry instead', OLD.deposit_id
        USING ERRCODE = 'restrict_violation', CONSTRAINT = 'suspense_final';
END $$;
-- +goose StatementEnd
ALTER TABLE deposits DROP COLUMN sender;
