package process

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
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

func parseSummary(body []byte) (*agentpb.RaySummary, error) {
	var answer struct {
		Data struct {
			Summary []struct {
				Raylet struct {
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
	for _, entry := range answer.Data.Summary {
		raylet := entry.Raylet
		if raylet.Address == "" {
			continue // registered, and not described yet
		}
		summary.Nodes = append(summary.Nodes, &agentpb.RayNode{
			Address: raylet.Address, Alive: raylet.State == "ALIVE", Gpus: int32(raylet.Resources.GPU), Head: raylet.Head,
		})
	}
	slices.SortFunc(summary.Nodes, func(a, b *agentpb.RayNode) int { return strings.Compare(a.GetAddress(), b.GetAddress()) })
	return summary, nil
}
