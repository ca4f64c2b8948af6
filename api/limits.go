package api

import (
	"container/list"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limit is how many requests a second, and how many at once after a pause.
type Limit struct {
	PerSecond float64
	Burst     int
}

// Limits bound what one address or person may ask. Zero values are the defaults.
type Limits struct {
	SignIn    Limit // per address: nonces and sign-ins; default 1, 30
	Address   Limit // per address: everything; default 100, 400
	Principal Limit // per session's person or API key; default 50, 200
}

// maxLimited is how many addresses, or people, are counted at once; the one that was quiet longest is forgotten first.
const maxLimited = 20_000

type limiters struct{ signIn, address, principal *limiter }

func newLimiters(l Limits) limiters {
	return limiters{
		signIn:    newLimiter("sign-in", l.SignIn.or(Limit{1, 30})),
		address:   newLimiter("address", l.Address.or(Limit{100, 400})),
		principal: newLimiter("principal", l.Principal.or(Limit{50, 200})),
	}
}

func (l Limit) or(fallback Limit) Limit {
	if l.PerSecond <= 0 || l.Burst <= 0 {
		return fallback
	}
	return l
}

// admit counts a request by its address.
func (l limiters) admit(w http.ResponseWriter, r *http.Request) bool {
	ip := clientIP(r)
	if !l.address.allow(w.Header(), ip) {
		return false
	}
	return !strings.HasPrefix(r.URL.Path, "/v1/auth/") || l.signIn.allow(w.Header(), ip)
}

// limiter counts by key. It is safe for concurrent use.
type limiter struct {
	name  string
	limit Limit

	mu    sync.Mutex
	byKey map[string]*list.Element
	order *list.List // of *counted, the latest used first
}

type counted struct {
	key    string
	bucket *rate.Limiter
}

func newLimiter(name string, limit Limit) *limiter {
	return &limiter{name: name, limit: limit, byKey: make(map[string]*list.Element), order: list.New()}
}

// allow takes one request from the key's bucket and tells the client in headers how it stands.
func (l *limiter) allow(header http.Header, key string) bool {
	now := time.Now()
	bucket := l.bucket(key)
	allowed := bucket.AllowN(now, 1)
	tokens := bucket.TokensAt(now)
	refill := int(math.Ceil((1 - min(tokens, 1)) / l.limit.PerSecond))
	header.Set("RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=%d", l.name, l.limit.Burst, int(math.Ceil(float64(l.limit.Burst)/l.limit.PerSecond))))
	header.Set("RateLimit", fmt.Sprintf("%q;r=%d;t=%d", l.name, max(0, int(tokens)), refill))
	if !allowed {
		header.Set("Retry-After", strconv.Itoa(max(1, refill)))
	}
	return allowed
}

func (l *limiter) bucket(key string) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if element, ok := l.byKey[key]; ok {
		l.order.MoveToFront(element)
		return element.Value.(*counted).bucket //nolint:errcheck // the list holds nothing else
	}
	for l.order.Len() >= maxLimited {
		oldest := l.order.Remove(l.order.Back()).(*counted) //nolint:errcheck // the list holds nothing else
		delete(l.byKey, oldest.key)
	}
	entry := &counted{key: key, bucket: rate.NewLimiter(rate.Limit(l.limit.PerSecond), l.limit.Burst)}
	l.byKey[key] = l.order.PushFront(entry)
	return entry.bucket
}
