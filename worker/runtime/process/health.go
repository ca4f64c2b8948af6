package process

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muster-gpu/muster/internal/agentpb"
)

const (
	probeTimeout    = 3 * time.Second
	maxSummaryBytes = 16 << 20 // Ray's summary carries process lists
)

// rayClient asks a node's own HTTP endpoints. Proxies never apply: the endpoints are on this machine.
type rayClient struct{ http *http.Client }

func newRayClient() rayClient {
	dialer := &net.Dialer{Timeout: probeTimeout}
	return rayClient{&http.Client{
		Timeout:   probeTimeout,
		Transport: &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute},
	}}
}

func (c rayClient) close() { c.http.CloseIdleConnections() }

func (c rayClient) get(ctx context.Context, url, token string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxSummaryBytes))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", url, response.Status)
	}
	return body, nil
}

// healthy is nil once Ray says that the node takes part in its cluster.
func (c rayClient) healthy(ctx context.Context, spec *agentpb.NodeSpec, token string) error {
	ports := portsOf(spec)
	url := baseURL(spec, ports.DashboardAgentHTTP) + "/api/local_raylet_healthz"
	if spec.GetHead() {
		url = baseURL(spec, ports.Dashboard) + "/api/gcs_healthz"
	}
	_, err := c.get(ctx, url, token)
	return err
}

// summary asks a head for the nodes that Ray knows, dead ones included.
func (c rayClient) summary(ctx context.Context, head *agentpb.NodeSpec, token string) (*agentpb.RaySummary, error) {
	body, err := c.get(ctx, baseURL(head, portsOf(head).Dashboard)+"/nodes?view=summary", token)
	if err != nil {
		return nil, err
	}
	return parseSummary(body)
}

// runningJobs counts the jobs of a head that have not ended: submitted ones, and drivers that connected by themselves. A client
// by Ray's own protocol has a driver on the head, so that an open session counts too.
func (c rayClient) runningJobs(ctx context.Context, head *agentpb.NodeSpec, token string) (int32, error) {
	body, err := c.get(ctx, baseURL(head, portsOf(head).Dashboard)+"/api/jobs/", token)
	if err != nil {
		return 0, err
	}
	return parseJobs(body)
}

func parseJobs(body []byte) (running int32, err error) {
	var jobs []struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(body, &jobs); err != nil {
		return 0, fmt.Errorf("read Ray's jobs: %w", err)
	}
	for _, job := range jobs {
		switch job.Status {
		case "SUCCEEDED", "FAILED", "STOPPED":
		default: // PENDING and RUNNING; a state that a later Ray adds is not taken for an end
			running++
		}
	}
	return running, nil
}

func parseSummary(body []byte) (*agentpb.RaySummary, error) {
	var answer struct {
		Data struct {
			Used    map[string]string `json:"nodeLogicalResources"` // by Ray's id of the node
			Summary []struct {
				Raylet struct {
					ID        string `json:"nodeId"`
					Address   string `json:"nodeManagerAddress"`
					State     string `json:"state"`
					Head      bool   `json:"isHeadNode"`
					Resources struct {
						GPU float64 `json:"GPU"`
					} `json:"resourcesTotal"`
				} `json:"raylet"`
			} `json:"summary"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("read Ray's node summary: %w", err)
	}
	summary := &agentpb.RaySummary{}
	busy, known := int32(0), true
	for _, entry := range answer.Data.Summary {
		raylet := entry.Raylet
		if raylet.Address == "" {
			continue // registered, and not described yet
		}
		summary.Nodes = append(summary.Nodes, &agentpb.RayNode{
			Address: raylet.Address, Alive: raylet.State == "ALIVE", Gpus: int32(raylet.Resources.GPU), Head: raylet.Head,
		})
		if raylet.State == "ALIVE" && !raylet.Head {
			used, told := answer.Data.Used[raylet.ID]
			known = known && told
			if holdsResources(used) {
				busy++
			}
		}
	}
	if known && len(answer.Data.Used) > 0 {
		summary.Busy = &busy
	}
	slices.SortFunc(summary.Nodes, func(a, b *agentpb.RayNode) int { return strings.Compare(a.GetAddress(), b.GetAddress()) })
	return summary, nil
}

// holdsResources reads Ray's text on a node, such as "1.0/2.0 CPU\n0.0/2.0 GPU\n0B/22.5GiB memory": whether a task or an actor
// holds anything. Objects do not count; they may be left by work that has ended.
func holdsResources(used string) bool {
	for line := range strings.Lines(used) {
		amount, resource, ok := strings.Cut(line, "/")
		if !ok || strings.Contains(resource, "object_store_memory") {
			continue
		}
		if held, err := strconv.ParseFloat(strings.TrimRight(amount, "BKMGTi"), 64); err != nil || held > 0 {
			return true
		}
	}
	return false
}
