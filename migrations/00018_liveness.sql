-- +goose Up

-- Most hosts are idle and heard all the time: writing every heartbeat of theirs says nothing new. Their gateway writes seldom, says here how
-- seldom, and writes the last heartbeat exactly as soon as one is late. A gateway that dies with its hosts delays their being missed by this.
ALTER TABLE hosts ADD COLUMN seen_slack_ms integer NOT NULL DEFAULT 0 CHECK (seen_slack_ms >= 0); -- the host may have been heard so much later than last_seen_at

-- +goose Down
ALTER TABLE hosts DROP COLUMN seen_slack_ms;
