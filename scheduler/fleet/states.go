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
	reasonMaintenance  = "in a maintenance window of its owner's"
	hardwarePrefix     = "hardware fault: " // of a quarantine that the owner may have checked again
	quarantinedPrefix  = "quarantined: "    // of a retired host's reason: its GPUs stay bound to it
)

// How a host is heard.
const (
	LivenessLive    = "live"
	LivenessSuspect = "suspect" // silent for longer than a heartbeat, and not offered meanwhile
	LivenessLost    = "lost"    // silent for too long, or never heard
)
