package apiv1

import "github.com/muster-gpu/muster/internal/ids"

// StreamEvent is the data of a "cluster" event of the stream: what to refetch, and why.
type StreamEvent struct {
	ID      ids.Cluster `json:"id"`
	Version int64       `json:"version" doc:"Of the cluster, when the event was sent"`
	Seq     int64       `json:"seq" doc:"Of the timeline's entry"`
	Kind    string      `json:"kind" doc:"Of the timeline's entry: state, node, receipt, release, credit, notice, ..."`
	Message string      `json:"message"`
}
