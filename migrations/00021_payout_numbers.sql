-- +goose Up
-- A payout holds its payee's number from the draft on, and lets it go when the batch ends without a signature. So far it took the number when
-- it was signed, which wrote every index of the table anew for each payout that is paid. One payout of a payee is live at a time, so the
-- numbers are the same ones.
ALTER TABLE payouts RENAME COLUMN signed TO numbered;
ALTER TABLE payouts ALTER COLUMN numbered SET DEFAULT true;
UPDATE payouts SET numbered = true WHERE live AND NOT numbered;

-- +goose Down
UPDATE payouts p SET numbered = EXISTS (SELECT 1 FROM payout_transactions t WHERE t.batch_id = p.batch_id) WHERE live;
ALTER TABLE payouts ALTER COLUMN numbered SET DEFAULT false;
ALTER TABLE payouts RENAME COLUMN numbered TO signed;
