package api

import (
	"github.com/google/uuid"

	"github.com/muster-gpu/muster/internal/ids"
)

// fixture is one of everything that an organisation can have, put into the database as the scheduler leaves it.
type fixture struct {
	org     ids.Org
	booking ids.Booking
	cluster ids.Cluster
	host    ids.Host
	gpu     ids.GPU
	node    ids.Node
}

func (b *bench) fixture(org ids.Org) fixture {
	b.t.Helper()
	f := fixture{
		org: org, booking: ids.New[ids.Booking](), cluster: ids.New[ids.Cluster](), host: ids.New[ids.Host](), gpu: ids.New[ids.GPU](),
		node: ids.New[ids.Node](),
	}
	b.exec(`INSERT INTO hosts (id, org_id, kind, name, state, region, machine_id, key_fingerprint, certificate_request_hash, certificate_pem,
	            certificate_expires_at, connected, images)
	        VALUES ($1, $2, 'gpu', 'rack-1', 'idle', 'eu-west', 'm', $3, '\x00', 'pem', now() + interval '4 hours', true, '{2.60.0}')`,
		f.host, org, f.host[:])
	b.exec(`INSERT INTO host_inventories (host_id, document, sha256) VALUES ($1, '{"driverVersion": "580.1", "cpus": 8}', '\x00')`, f.host)
	b.exec(`INSERT INTO gpus (id, host_id, uuid, ordinal, model, product, memory_mib) VALUES ($1, $2, $3, 0, 'H100', 'NVIDIA H100', 81559)`,
		f.gpu, f.host, uuid.UUID(f.gpu).String())
	b.exec(`INSERT INTO asks (id, org_id, host_id, price_per_gpu_hour) VALUES ($1, $2, $3, 1900000)`, ids.New[ids.Ask](), org, f.host)
	b.exec(`INSERT INTO bookings (id, org_id, gpu_model, node_count, gpus_per_node, duration_ms, fee_bps, plan, hold_base_units, expires_at,
	            requested_at, state, decided_at)
	        VALUES ($1, $2, 'H100', 1, 1, 3600000, 500, '[]', 1900000, now() + interval '1 minute', now(), 'accepted', now())`, f.booking, org)
	b.exec(`INSERT INTO clusters (id, org_id, booking_id, name, gpu_model, node_count, gpus_per_node, duration_ms, hold_base_units, fee_bps,
	            ray_version, ray_token_sealed, places, forecast_end)
	        VALUES ($1, $2, $3, 'train', 'H100', 1, 1, 3600000, 1900000, 500, '2.60.0', '\x00', '{1}', now() + interval '1 hour')`, f.cluster, org, f.booking)
	b.exec(`INSERT INTO nodes (id, cluster_id, host_id, role, ordinal, slot, gpus, machine_id)
	        VALUES ($1, $2, $3, 'gpu', 1, (SELECT count(*) FROM nodes), 1, 'm')`, f.node, f.cluster, f.host)
	b.event(f, "The cluster is reserved.")
	return f
}

// event adds to a cluster's timeline and notifies, as the scheduler does.
func (b *bench) event(f fixture, message string) (seq int64) {
	b.t.Helper()
	err := b.pool.QueryRow(b.t.Context(), `
		WITH bumped AS (UPDATE clusters SET version = version + 1 WHERE id = $1)
		INSERT INTO cluster_events (cluster_id, org_id, kind, state, message) VALUES ($1, $2, 'state', 'reserved', $3) RETURNING seq`,
		f.cluster, f.org, message).Scan(&seq)
	fatal(b.t, err)
	b.exec(`SELECT pg_notify('muster_cluster_events', $1)`, uuid.UUID(f.org).String())
	return seq
}

func (b *bench) exec(sql string, args ...any) {
	b.t.Helper()
	_, err := b.pool.Exec(b.t.Context(), sql, args...)
	fatal(b.t, err)
}
