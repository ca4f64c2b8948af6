package fleet

// States of hosts, as in the schema.
const (
	StateEnrolled    = "enrolled"
	StateVerifying   = "verifying"
	StateIdle        = "idle"
	StateLeased      = "leased"
	StateDraining    = "draining"
	StateQuarantined = "quarantined"
	StateLost        = "lost"
	StateRetired     = "retired"
)

// Reasons that decide something later: a cordoned host is cordoned again after it was lost.
const (
	reasonCordoned     = "cordoned by its owner"
	reasonCordonedLost = "cordoned by its owner, and not heard of since"
	reasonLost         = "the host has not been heard of: check that it is on, that muster-worker runs and that it reaches the control plane"
	quarantinedPrefix  = "quarantined: " // of a retired host's reason: its GPUs stay bound to it
)
