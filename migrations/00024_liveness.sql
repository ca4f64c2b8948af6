-- +goose Up

-- Most hosts are idle and are heard all the time: to write each of their heartbeats says nothing new. Their gateway writes seldom, says
-- here how much later such a host may have been heard, and writes its last heartbeat exactly, without slack, as soon as another is late.
ALTER TABLE hosts
    ADD COLUMN seen_slack_ms integer NOT NULL DEFAULT 0 CHECK (seen_slack_ms >= 0), -- it may have been heard so much after last_seen_at
    ADD COLUMN stream        bigint  NOT NULL DEFAULT 0; -- the number of its newest stream, whose gateway alone knows the slack

-- +goose Down
ALTER TABLE hosts DROP COLUMN stream, DROP COLUMN seen_slack_ms;
