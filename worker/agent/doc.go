// Package agent is muster-worker's conversation with the control plane.
//
// It enrols the host, keeps one stream open, tells what the host has and what runs on it, and hands the desired state to the
// runtime. It keeps nothing but the host's identity, in one file that is replaced as a whole: the agent may be killed at any
// moment, and so may the control plane, without harm to the nodes that run.
//
// The control plane is known by its certificate authority alone, whose pin the join token carried. The host's key is made here and
// never leaves.
package agent
