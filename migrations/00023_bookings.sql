-- +goose Up

-- The transaction that writes a cluster holds its booking's row locked, and takes its organisation and creator from it, which were
-- checked there; whoever writes a cluster's timeline has read the cluster. Organisations, users, bookings and clusters are never
-- deleted. Checking these references again looked up and locked five rows a booking.
ALTER TABLE clusters DROP CONSTRAINT clusters_org_id_fkey, DROP CONSTRAINT clusters_booking_id_fkey, DROP CONSTRAINT clusters_created_by_fkey;
ALTER TABLE cluster_events DROP CONSTRAINT cluster_events_cluster_id_fkey, DROP CONSTRAINT cluster_events_org_id_fkey;

-- +goose Down
ALTER TABLE cluster_events ADD CONSTRAINT cluster_events_cluster_id_fkey FOREIGN KEY (cluster_id) REFERENCES clusters,
    ADD CONSTRAINT cluster_events_org_id_fkey FOREIGN KEY (org_id) REFERENCES organisations;
ALTER TABLE clusters ADD CONSTRAINT clusters_org_id_fkey FOREIGN KEY (org_id) REFERENCES organisations,
    ADD CONSTRAINT clusters_booking_id_fkey FOREIGN KEY (booking_id) REFERENCES bookings,
    ADD CONSTRAINT clusters_created_by_fkey FOREIGN KEY (created_by) REFERENCES users;
