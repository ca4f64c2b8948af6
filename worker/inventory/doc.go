// Package inventory reads what a host has: its GPUs through NVIDIA's management library, and the machine around them.
//
// Drivers wedge: a call into NVML may never return, and a process in such a call may not even die of SIGKILL. The agent
// therefore never loads NVML itself. It starts a child of its own program (ProbeMain), bounds its time and output, and abandons
// it if it cannot be killed. At most one abandoned child exists at a time, and after a failure the next attempt waits longer,
// so that a wedged driver is not hammered.
//
// Errors of GPUs (Xids) are told only to whoever waits for them at that moment, so a second child waits for as long as the agent runs
// (Watch): it says each second that it lives, is killed when it falls silent, and is started again, later each time.
//
// A missing NVML symbol ends the process that calls it, without a Go panic. Every call is therefore guarded by a look-up, and
// what a driver does not have, support or permit stays absent in the inventory, never zero.
//
// Build this package without `-Wl,-z,now` (and run it without LD_BIND_NOW): go-nvml leaves NVML's symbols unresolved until
// the library is loaded, and eager binding would keep the program from starting where there is no GPU.
package inventory
