package api

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
)

const (
	maxBodyBytes    = 1 << 20 // of a JSON body
	bodyReadTimeout = 30 * time.Second
	apiVersion      = "v1"
	schemaPrefix    = "#/components/schemas/"
	sessionScheme   = "session"
	keyScheme       = "key"
	jsonType        = "application/json"
	problemType     = "application/problem+json"
)

//nolint:gochecknoinits // huma offers its error form and its null rule, and gin its silence, only as package variables.
func init() {
	gin.SetMode(gin.ReleaseMode)
	huma.NewErrorWithContext = newHumaProblem
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		return newHumaProblem(nil, status, message, errs...)
	}
	// Lists are never null: an empty one is [].
	huma.DefaultArrayNullable = false
}

// endpoint declares one operation.
type endpoint struct {
	id      string
	method  string
	path    string
	tag     string
	summary string
	doc     string
	status  int // of success; 200 when zero
	codes   []int
	success map[string]*huma.Response // when huma cannot tell it from the output's type
}

// newHuma makes the API that operations register with. What it serves itself (documents, schema links) is switched off: the
// server does that.
func newHuma(engine *gin.Engine) huma.API {
	registry := huma.NewMapRegistry(schemaPrefix, huma.DefaultSchemaNamer)
	describeIDs(registry)
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:   "Muster",
				Version: apiVersion,
				Description: "Ray clusters from idle GPUs. Sign in with a Solana wallet, or send an API key as a bearer token. " +
					"Errors are problem documents (RFC 9457) whose code is what programs act on. Amounts are exact decimal text.",
			},
			Components: &huma.Components{Schemas: registry, SecuritySchemes: map[string]*huma.SecurityScheme{
				sessionScheme: {Type: "apiKey", In: "cookie", Name: sessionCookie, Description: "Set by signing in"},
				keyScheme:     {Type: "http", Scheme: "bearer", Description: "An API key, mst_..."},
			}},
			Tags: []*huma.Tag{
				{Name: tagIdentity, Description: "Signing in, organisations, members and API keys"},
				{Name: tagMarket, Description: "What can be booked, at which price"},
				{Name: tagClusters, Description: "Booked Ray clusters and their jobs"},
				{Name: tagHosts, Description: "An owner's machines and earnings"},
				{Name: tagWallet, Description: "The prepaid balance"},
				{Name: tagFinance, Description: "Payouts and reconciliation, for the platform's finance"},
				{Name: tagProof, Description: "What anybody can check payouts with"},
			},
		},
		Formats:                      map[string]huma.Format{jsonType: huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                jsonType,
		RejectUnknownQueryParameters: true,
	}
	// Problem details that no operation answers with by themselves.
	registry.Schema(reflect.TypeFor[apiv1.Shortfall](), true, "")
	return humagin.New(engine, config)
}

const (
	tagIdentity = "Identity"
	tagMarket   = "Market"
	tagClusters = "Clusters"
	tagHosts    = "Hosts"
	tagWallet   = "Wallet"
	tagFinance  = "Finance"
	tagProof    = "Proof"
)

// register adds one operation: its authorisation, its repeatability and the mapping of its errors.
func register[I, O any](s *Server, e endpoint, handle func(context.Context, *I) (*O, error)) {
	access, known := accessRules[e.id]
	if !known {
		panic("api: no access rule for " + e.id)
	}
	op := huma.Operation{
		OperationID: e.id, Method: e.method, Path: e.path, Summary: e.summary, Description: e.doc, Tags: []string{e.tag},
		DefaultStatus: e.status, Errors: problemStatuses(e, access), Security: access.security(),
		MaxBodyBytes: maxBodyBytes + 1, BodyReadTimeout: bodyReadTimeout,
		Responses:   e.success,
		Middlewares: huma.Middlewares{s.authorise(access)},
	}
	huma.Register(s.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := repeatable(ctx, &s.answers, e.id, in, handle)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		return out, nil
	})
}

// eventStream describes an answer of server-sent events, whose data is an E.
func eventStream[E any](api huma.API) map[string]*huma.Response {
	event := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[E](), true, "")
	return map[string]*huma.Response{"200": {
		Description: "The data of each event is one of these",
		Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: event}},
	}}
}

func problemStatuses(e endpoint, access accessRule) []int {
	statuses := []int{http.StatusTooManyRequests}
	if !access.public {
		statuses = append(statuses, http.StatusUnauthorized, http.StatusForbidden)
	}
	if e.method != http.MethodGet {
		statuses = append(statuses, http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge)
	}
	return append(statuses, e.codes...)
}

// describeIDs gives the ids their text form in the schema.
func describeIDs(registry huma.Registry) {
	describeID(registry, ids.Org{})
	describeID(registry, ids.User{})
	describeID(registry, ids.Key{})
	describeID(registry, ids.Host{})
	describeID(registry, ids.JoinToken{})
	describeID(registry, ids.GPU{})
	describeID(registry, ids.Booking{})
	describeID(registry, ids.Cluster{})
	describeID(registry, ids.Node{})
	describeID(registry, ids.Transfer{})
	describeID(registry, ids.Deposit{})
	describeID(registry, ids.Sweep{})
	describeID(registry, ids.Batch{})
	describeID(registry, ids.Payout{})
	describeID(registry, ids.Reconciliation{})
	describeID(registry, ids.Difference{})
	describeID(registry, ids.PayoutRun{})
	describeID(registry, ids.Withdrawal{})
	describeID(registry, ids.Bid{})
	describeID(registry, ids.Maintenance{})
	describeID(registry, ids.Lease{})
}

func describeID[K ids.Kind](registry huma.Registry, _ ids.ID[K]) {
	registry.RegisterTypeAlias(reflect.TypeFor[ids.ID[K]](), reflect.TypeFor[idSchema[K]]())
}

// idSchema stands for an id of kind K where schemas are made.
type idSchema[K ids.Kind] struct{}

// Schema implements huma.SchemaProvider.
func (idSchema[K]) Schema(huma.Registry) *huma.Schema {
	var kind K
	return &huma.Schema{
		Type:               huma.TypeString,
		Pattern:            "^" + kind.Prefix() + "_[0-7][0-9a-hjkmnp-tv-z]{25}$",
		PatternDescription: kind.Prefix() + "_ and 26 characters",
	}
}
