package api

import (
	"github.com/danielgtaylor/huma/v2"

	"github.com/muster-gpu/muster/internal/ids"
)

// The parameters that operations share, embedded in their inputs.

// OrgParam names the organisation that the caller acts for. The authoriser has read and resolved it before a handler runs:
// handlers take the organisation from the caller, never from here.
type OrgParam struct {
	Org ids.Org `query:"org" json:"-" doc:"The organisation to act for; may be left out by a caller who has exactly one, and with an API key"`
}

// PageParams select one page of a list.
type PageParams struct {
	Cursor string `query:"cursor" json:"-" maxLength:"200" doc:"next_cursor of the page before"`
	Limit  int    `query:"limit" json:"-" minimum:"1" maximum:"200" default:"50" doc:"Most items of a page"`
}

// KeyParam makes a mutation repeatable.
type KeyParam struct {
	IdempotencyKey string `header:"Idempotency-Key" json:"-" maxLength:"255" doc:"Any text of the caller's: the same key with the same request gives the same answer, with another request a conflict"`
}

func (p KeyParam) idempotencyKey() string { return p.IdempotencyKey }

// ClusterParam names a cluster in the path.
type ClusterParam struct {
	ID ids.Cluster `path:"id" json:"id"`
}

// HostParam names a host in the path.
type HostParam struct {
	ID ids.Host `path:"id" json:"id"`
}

// JobParam names a job of a cluster in the path.
type JobParam struct {
	Job string `path:"job" json:"job" minLength:"1" maxLength:"128" pattern:"^[A-Za-z0-9._-]+$" patternDescription:"a Ray submission id" doc:"Ray's submission id"`
}

// output is a handler's answer with a body.
type output[T any] struct{ Body T }

func answer[T any](body T) *output[T] { return &output[T]{Body: body} }

// nothing is a handler's answer without one.
type nothing struct{}

// noInput is the input of an operation that takes none.
type noInput struct{}

type orgInput struct{ OrgParam }

type orgListInput struct {
	OrgParam
	PageParams
}

type orgMutation struct {
	OrgParam
	KeyParam
}

// orgBody is a mutation with a body.
type orgBody[T any] struct {
	OrgParam
	KeyParam
	Body T `json:"body"`
}

// plainBody is a request with a body that is neither of an organisation nor repeatable.
type plainBody[T any] struct{ Body T }

type clusterInput struct {
	OrgParam
	ClusterParam
}

type clusterMutation struct {
	OrgParam
	KeyParam
	ClusterParam
}

// clusterBody is a mutation of a cluster with a body.
type clusterBody[T any] struct {
	OrgParam
	KeyParam
	ClusterParam
	Body T `json:"body"`
}

type jobInput struct {
	OrgParam
	ClusterParam
	JobParam
}

type jobMutation struct {
	OrgParam
	KeyParam
	ClusterParam
	JobParam
}

type hostInput struct {
	OrgParam
	HostParam
}

type hostMutation struct {
	OrgParam
	KeyParam
	HostParam
}

// hostBody is a request about a host with a body.
type hostBody[T any] struct {
	OrgParam
	KeyParam
	HostParam
	Body T `json:"body"`
}

type streamOutput struct{ Body func(huma.Context) }
