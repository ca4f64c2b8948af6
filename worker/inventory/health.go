package inventory

import (
	"slices"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/muster-gpu/muster/internal/agentpb"
)

// throttleReasons are the causes of a lower clock that mean trouble, by NVML's bits. An idle GPU, or one at its power limit, is well.
var throttleReasons = []struct {
	bit  uint64
	name string
}{
	{nvml.ClocksThrottleReasonHwThermalSlowdown, "hw_thermal_slowdown"},
	{nvml.ClocksThrottleReasonHwPowerBrakeSlowdown, "hw_power_brake"},
	{nvml.ClocksThrottleReasonHwSlowdown, "hw_slowdown"},
	{nvml.ClocksEventReasonSwThermalSlowdown, "sw_thermal_slowdown"},
}

// applicationXids are errors that a program on the GPU causes, not the GPU.
var applicationXids = []int32{13, 31, 43, 45, 68, 109}

// health reads what tells whether a GPU is sound. What its inventory has read already is taken from there.
func (d device) health() *agentpb.GPUHealth {
	return &agentpb.GPUHealth{
		Uuid: d.gpu.GetUuid(), TemperatureCelsius: d.gpu.TemperatureCelsius, EccUncorrected: d.gpu.EccUncorrected,
		RowsPending: d.rowsPending(), ThrottleReasons: d.throttleReasons(),
	}
}

// rowsPending asks after remapped rows and, on older GPUs, retired pages.
func (d device) rowsPending() *bool {
	rows := get(d, func() (bool, nvml.Return) {
		_, _, pending, _, ret := d.handle.GetRemappedRows()
		return pending, ret
	}, "nvmlDeviceGetRemappedRows")
	if rows != nil {
		return rows
	}
	pages := get(d, d.handle.GetRetiredPagesPendingStatus, "nvmlDeviceGetRetiredPagesPendingStatus")
	if pages == nil {
		return nil
	}
	pending := *pages == nvml.FEATURE_ENABLED
	return &pending
}

func (d device) throttleReasons() []string {
	mask := get(d, d.handle.GetCurrentClocksEventReasons, "nvmlDeviceGetCurrentClocksEventReasons")
	if mask == nil {
		mask = get(d, d.handle.GetCurrentClocksThrottleReasons, "nvmlDeviceGetCurrentClocksThrottleReasons")
	}
	if mask == nil {
		return nil
	}
	var names []string
	for _, reason := range throttleReasons {
		if *mask&reason.bit != 0 {
			names = append(names, reason.name)
		}
	}
	return names
}

// isHardware reports whether an Xid is the GPU's own error.
func isHardware(xid int32) bool { return xid > 0 && !slices.Contains(applicationXids, xid) }
