package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/benchkit"
)

const (
	peerConnections = 64
	peerFlush       = 250 * time.Millisecond // as the gateway's
	peerBodyLimit   = 64 << 10
	peerTimeout     = 30 * time.Second
	heartbeatPath   = "/v1/heartbeat"
	heartbeatGPUs   = 6 // which makes 1.5 kB
)

// heartbeat is what such an agent says each time.
type heartbeat struct {
	HostID       uuid.UUID      `json:"host_id"`
	AgentVersion string         `json:"agent_version"`
	Sequence     int64          `json:"sequence"`
	SentAt       time.Time      `json:"sent_at"`
	Generation   int64          `json:"applied_generation"`
	Load         [3]float64     `json:"load_average"`
	MemoryFree   int64          `json:"memory_free_bytes"`
	DiskFree     int64          `json:"disk_free_bytes"`
	GPUs         []heartbeatGPU `json:"gpus"`
}

type heartbeatGPU struct {
	UUID        string  `json:"uuid"`
	Product     string  `json:"product"`
	MemoryTotal int64   `json:"memory_total_bytes"`
	MemoryUsed  int64   `json:"memory_used_bytes"`
	Temperature int     `json:"temperature_celsius"`
	Power       float64 `json:"power_watts"`
	Utilization int     `json:"utilization_percent"`
	Healthy     bool    `json:"healthy"`
}

func body(host uuid.UUID, sequence int64) ([]byte, error) {
	beat := heartbeat{
		HostID: host, AgentVersion: "1.0.0", Sequence: sequence, SentAt: time.Now().UTC(), Generation: 12, Load: [3]float64{0.12, 0.34, 0.56},
		MemoryFree: 512 << 30, DiskFree: 3 << 40,
	}
	for i := range heartbeatGPUs {
		beat.GPUs = append(beat.GPUs, heartbeatGPU{
			UUID: fmt.Sprintf("GPU-%s%d", host.String()[:35], i), Product: "NVIDIA H100 80GB HBM3", MemoryTotal: 85_520_809_984, MemoryUsed: 1 << 20,
			Temperature: 31, Power: 71.25, Healthy: true,
		})
	}
	return json.Marshal(beat)
}

// measurePosts posts heartbeats of the same hosts at the same rate to the peer.
func measurePosts(ctx context.Context, s settings, db *benchkit.Database) (result sample, err error) {
	hosts, err := hostIDs(ctx, db.Pool)
	if err != nil {
		return sample{}, err
	}
	peer, err := startRole(ctx, rolePeer, s)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, peer.stop()) }()
	load, cancel := context.WithCancel(ctx)
	posted := make(chan error, 1)
	go func() { posted <- post(load, "http://"+peer.address+heartbeatPath, hosts) }()
	defer func() { cancel(); err = errors.Join(err, <-posted) }()
	if err := sleep(ctx, s.settle); err != nil {
		return sample{}, err
	}
	s.profile = ""
	return peer.window(ctx, s, db)
}

func hostIDs(ctx context.Context, pool *pgxpool.Pool) ([]uuid.UUID, error) {
	var hosts []uuid.UUID
	err := pool.QueryRow(ctx, `SELECT array_agg(id) FROM hosts`).Scan(&hosts)
	return hosts, err
}

// post sends each host's heartbeat once in beatEvery, evenly spread, until ctx ends.
func post(ctx context.Context, address string, hosts []uuid.UUID) error {
	client := &http.Client{Timeout: peerTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: peerConnections, MaxConnsPerHost: peerConnections}}
	defer client.CloseIdleConnections()
	due := make(chan int)
	var workers sync.WaitGroup
	failures := make(chan error, peerConnections)
	for range peerConnections {
		workers.Go(func() {
			for turn := range due {
				if err := postOne(ctx, client, address, hosts[turn%len(hosts)], int64(turn/len(hosts))); err != nil && ctx.Err() == nil {
					select {
					case failures <- err:
					default:
					}
				}
			}
		})
	}
	began := time.Now()
	for turn := 0; ctx.Err() == nil; turn++ {
		at := began.Add(beatEvery * time.Duration(turn) / time.Duration(len(hosts)))
		if err := sleep(ctx, time.Until(at)); err != nil {
			break
		}
		due <- turn
	}
	close(due)
	workers.Wait()
	close(failures)
	return <-failures
}

func postOne(ctx context.Context, client *http.Client, address string, host uuid.UUID, sequence int64) error {
	content, err := body(host, sequence)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(content))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusNoContent {
		return fmt.Errorf("a heartbeat was answered with %s", response.Status)
	}
	return nil
}

// collector is the peer: a handler that collects heartbeats, and a loop that writes them.
type collector struct {
	pool  *pgxpool.Pool
	count atomic.Int64

	mu    sync.Mutex
	beats map[uuid.UUID]int64 // the generation that each has applied
}

// ServeHTTP implements http.Handler.
func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var beat heartbeat
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, peerBodyLimit)).Decode(&beat); err != nil || beat.HostID == uuid.Nil {
		http.Error(w, "not a heartbeat", http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	c.beats[beat.HostID] = beat.Generation
	c.mu.Unlock()
	c.count.Add(1)
	w.WriteHeader(http.StatusNoContent)
}

// flush writes what came since the last time, in one statement.
func (c *collector) flush(ctx context.Context) error {
	c.mu.Lock()
	beats := c.beats
	c.beats = map[uuid.UUID]int64{}
	c.mu.Unlock()
	if len(beats) == 0 {
		return nil
	}
	hosts, generations := make([]uuid.UUID, 0, len(beats)), make([]int64, 0, len(beats))
	for host, generation := range beats {
		hosts, generations = append(hosts, host), append(generations, generation)
	}
	_, err := c.pool.Exec(ctx, `UPDATE hosts h SET last_seen_at = now(),
			applied_generation = greatest(h.applied_generation, least(beat.generation, h.desired_generation))
		FROM (SELECT unnest($1::uuid[]) AS id, unnest($2::bigint[]) AS generation) beat WHERE h.id = beat.id`, hosts, generations)
	return err
}

// servePeer is the role of the peer's process.
func servePeer(ctx context.Context, s settings, log *slog.Logger) error {
	pool, err := benchkit.OpenPool(ctx, s.databaseURL, connections)
	if err != nil {
		return err
	}
	defer pool.Close()
	c := &collector{pool: pool, beats: map[uuid.UUID]int64{}}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("POST "+heartbeatPath, c)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: peerTimeout, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var work sync.WaitGroup
	work.Go(func() { _ = server.Serve(listener) }) // until it is closed
	work.Go(func() {
		ticker := time.NewTicker(peerFlush)
		defer ticker.Stop()
		for ctx.Err() == nil {
			if err := c.flush(ctx); err != nil && ctx.Err() == nil {
				log.WarnContext(ctx, "heartbeats not written", "error", err)
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
			}
		}
	})
	err = obey(listener.Addr().String(), s.profile, c.count.Load, func() { cancel(); _ = server.Close() })
	work.Wait()
	return err
}
