// Package api is Muster's HTTP face: the API described by openapi.json, its documentation, the event stream and the console's
// files.
//
// # Layers
//
// A request passes, in this order: request id, access log and metrics; recovery; the host check (a name that is not ours is
// 421, so a rebound DNS name reaches nothing); cross-origin protection; then by path either Ray's proxy, the console's files,
// or the router. Every operation of the router is declared in routes.go and has one row in the table of authz.go, which is the
// whole authorisation: it is decided before anything of the request is parsed. Handlers, one file a resource, translate between
// the wire types of api/v1 and the domain, and hold no rules of their own.
//
// # Errors
//
// Whatever goes wrong leaves as a problem document made in problem.go. Domain errors (*errs.Error) are shown, anything else is
// logged under its request id and hidden.
//
// # Bounds
//
// Bodies are at most 1 MiB, headers 32 KiB, pages 200 items; requests are limited per person and per address, streams per
// person and in all, and the memory that counts them is bounded too. Nothing waits for a slow client longer than a deadline.
package api
