// Package pgnotify fans Postgres notifications out inside a process, over one LISTEN connection.
//
// A notification only wakes: it may be lost (the connection breaks, a subscriber is slow), so every subscriber also polls at an
// interval of its own. Whenever the connection stands, again or for the first time, every subscriber is woken once with an empty
// payload, because anything may have been missed before.
package pgnotify

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// The channels of Muster.
const (
	ChannelBookings      = "muster_bookings"       // a booking waits for the applier
	ChannelDecided       = "muster_decided"        // payload: a list of bookings' uuids
	ChannelScheduler     = "muster_scheduler"      // a host reported something
	ChannelHost          = "muster_host"           // payload: a list of uuids of hosts whose desired state changed
	ChannelClusterEvents = "muster_cluster_events" // payload: an organisation's uuid
	ChannelSettlement    = "muster_settlement"     // a batch or a cluster waits for settlement
)

// channels are all that a Hub listens to.
func channels() []string {
	return []string{
		ChannelBookings, ChannelDecided, ChannelScheduler, ChannelHost, ChannelClusterEvents, ChannelSettlement,
	}
}

const (
	subscriberBuffer  = 64
	connectTimeout    = 10 * time.Second
	disconnectTimeout = time.Second
	reconnectDelay    = 500 * time.Millisecond
)

// Hub listens for a process. Make it with New, run it with Run; its methods may be called from any goroutine, before and after
// Run.
type Hub struct {
	pool *pgxpool.Pool
	log  *slog.Logger

	mu          sync.Mutex
	subscribers map[string]map[chan string]struct{}
}

// New makes a hub that connects as the pool does. While it runs it has one connection of its own beside the pool's.
func New(pool *pgxpool.Pool, log *slog.Logger) *Hub {
	return &Hub{pool: pool, log: log, subscribers: make(map[string]map[chan string]struct{})}
}

// Subscribe returns a stream of the channel's payloads and a function that ends it, after which nothing more comes; the stream is
// never closed. A full stream drops notifications: its reader has wake-ups waiting anyway.
func (h *Hub) Subscribe(channel string) (<-chan string, func()) {
	stream := make(chan string, subscriberBuffer)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subscribers[channel] == nil {
		h.subscribers[channel] = make(map[chan string]struct{})
	}
	h.subscribers[channel][stream] = struct{}{}
	return stream, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.subscribers[channel], stream)
	}
}

// listLength keeps a list of uuids within what a notification may carry, 8000 bytes.
const listLength = 200

// AppendLists appends what tells uuids on a channel in as few notifications as will do: a channel and a payload for each.
func AppendLists(channels, payloads []string, channel string, uuids []string) (allChannels, allPayloads []string) {
	for list := range slices.Chunk(uuids, listLength) {
		channels, payloads = append(channels, channel), append(payloads, strings.Join(list, ","))
	}
	return channels, payloads
}

// List takes a payload of uuids apart. What is none is left out.
func List(payload string) []uuid.UUID {
	var list []uuid.UUID
	for text := range strings.SplitSeq(payload, ",") {
		if id, err := uuid.Parse(text); err == nil {
			list = append(list, id)
		}
	}
	return list
}

// Drain discards what waits on a stream. Call it before a look that serves all of it, or the look is repeated for each.
func Drain(stream <-chan string) {
	for {
		select {
		case <-stream:
		default:
			return
		}
	}
}

// Run listens until ctx ends, reconnecting as often as needed. It is a lifecycle.Func.
func (h *Hub) Run(ctx context.Context, ready func()) error {
	for ctx.Err() == nil {
		if err := h.listen(ctx, ready); err != nil && ctx.Err() == nil {
			h.log.WarnContext(ctx, "notifications interrupted, listening again", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(reconnectDelay):
			}
		}
	}
	return nil
}

func (h *Hub) listen(ctx context.Context, ready func()) error {
	conn, err := h.connect(ctx)
	if err != nil {
		return err
	}
	defer disconnect(ctx, conn)
	ready()
	h.wakeAll()
	for {
		notification, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		h.publish(notification.Channel, notification.Payload)
	}
}

// connect makes a connection of the hub's own, not the pool's: it must not go back with LISTEN still on.
func (h *Hub) connect(ctx context.Context) (*pgx.Conn, error) {
	bounded, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(bounded, h.pool.Config().ConnConfig)
	if err != nil {
		return nil, err
	}
	for _, channel := range channels() {
		if _, err := conn.Exec(bounded, "LISTEN "+channel); err != nil {
			disconnect(ctx, conn)
			return nil, err
		}
	}
	return conn, nil
}

func disconnect(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), disconnectTimeout)
	defer cancel()
	_ = conn.Close(ctx)
}

func (h *Hub) wakeAll() {
	for _, channel := range channels() {
		h.publish(channel, "")
	}
}

func (h *Hub) publish(channel, payload string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for stream := range h.subscribers[channel] {
		select {
		case stream <- payload:
		default:
		}
	}
}
