-- +goose Up
-- Payouts change twice while they are paid, and each change writes every index of the table anew. One index on token accounts now serves
-- both for looking payees up and for keeping a batch from paying one twice, and payouts of earnings are not among the withdrawals.
CREATE UNIQUE INDEX payouts_one_per_token_account ON payouts (token_account, batch_id);
ALTER TABLE payouts DROP CONSTRAINT payouts_batch_id_token_account_key;
DROP INDEX payouts_by_token_account;
DROP INDEX payouts_one_live_per_withdrawal;
CREATE UNIQUE INDEX payouts_one_live_per_withdrawal ON payouts (withdrawal_id) WHERE live AND withdrawal_id IS NOT NULL;

-- +goose Down
DROP INDEX payouts_one_live_per_withdrawal;
CREATE UNIQUE INDEX payouts_one_live_per_withdrawal ON payouts (withdrawal_id) WHERE live;
CREATE INDEX payouts_by_token_account ON payouts (token_account);
ALTER TABLE payouts ADD CONSTRAINT payouts_batch_id_token_account_key UNIQUE (batch_id, token_account);
DROP INDEX payouts_one_per_token_account;
