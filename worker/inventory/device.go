package inventory

import (
	"fmt"
	"math"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/muster-gpu/muster/internal/agentpb"
)

// device reads one GPU into its entry.
type device struct {
	library
	handle nvml.Device
	gpu    *agentpb.GPU
}

// get makes one guarded call. It is nil when the driver does not have the call, or has no answer; a call that finds the GPU
// gone makes that the GPU's fault.
func get[V any](d device, call func() (V, nvml.Return), symbols ...string) *V {
	if !d.has(symbols...) {
		return nil
	}
	value, ret := call()
	switch ret {
	case nvml.SUCCESS:
		return &value
	case nvml.ERROR_GPU_IS_LOST:
		d.gpu.Fault = "the GPU is lost: it has fallen off the bus"
	case nvml.ERROR_RESET_REQUIRED:
		if d.gpu.GetFault() == "" {
			d.gpu.Fault = "the GPU needs a reset"
		}
	default: // not supported, not permitted, or a passing trouble: unknown
	}
	return nil
}

func count[V ~int | ~uint32](value *V) *int32 {
	if value == nil || uint64(*value) > math.MaxInt32 {
		return nil
	}
	number := int32(*value)
	return &number
}

func bytes(value uint64) *int64 {
	if value > math.MaxInt64 {
		return nil
	}
	number := int64(value)
	return &number
}

func named[V comparable](value *V, names map[V]string) *string {
	if value == nil {
		return nil
	}
	name, known := names[*value]
	if !known {
		name = fmt.Sprint(*value)
	}
	return &name
}

func (d device) identity() {
	if uuid := get(d, d.handle.GetUUID, "nvmlDeviceGetUUID"); uuid != nil {
		d.gpu.Uuid = *uuid
	}
	if name := get(d, d.handle.GetName, "nvmlDeviceGetName"); name != nil {
		d.gpu.Product = *name
	}
	d.gpu.Serial = get(d, d.handle.GetSerial, "nvmlDeviceGetSerial")
	d.gpu.BoardPartNumber = get(d, d.handle.GetBoardPartNumber, "nvmlDeviceGetBoardPartNumber")
	d.gpu.VbiosVersion = get(d, d.handle.GetVbiosVersion, "nvmlDeviceGetVbiosVersion")
	pci := get(d, d.handle.GetPciInfo, "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetPciInfo_v2", "nvmlDeviceGetPciInfo")
	if pci == nil {
		return
	}
	if id := characters(pci.BusId[:]); id != "" {
		d.gpu.PciBusId = &id
	}
	d.gpu.PciDeviceId, d.gpu.PciSubsystemId = &pci.PciDeviceId, &pci.PciSubSystemId
}

func characters(raw []int8) string {
	var text strings.Builder
	for _, c := range raw {
		if c == 0 {
			break
		}
		text.WriteByte(byte(c))
	}
	return text.String()
}

func (d device) board() {
	d.gpu.Brand = named(get(d, d.handle.GetBrand, "nvmlDeviceGetBrand"), brands)
	d.gpu.Architecture = named(get(d, d.handle.GetArchitecture, "nvmlDeviceGetArchitecture"), architectures)
	capability := get(d, func() ([2]int, nvml.Return) {
		major, minor, ret := d.handle.GetCudaComputeCapability()
		return [2]int{major, minor}, ret
	}, "nvmlDeviceGetCudaComputeCapability")
	if capability != nil {
		text := fmt.Sprintf("%d.%d", capability[0], capability[1])
		d.gpu.ComputeCapability = &text
	}
	d.gpu.Cores = count(get(d, d.handle.GetNumGpuCores, "nvmlDeviceGetNumGpuCores"))
	d.memory()
}

// memory prefers the newer call: the older one counts what the driver reserves as used.
func (d device) memory() {
	if all := get(d, d.handle.GetMemoryInfo_v2, "nvmlDeviceGetMemoryInfo_v2"); all != nil {
		d.setMemory(all.Total, all.Used)
	} else if all := get(d, d.handle.GetMemoryInfo, "nvmlDeviceGetMemoryInfo"); all != nil {
		d.setMemory(all.Total, all.Used)
	}
	if bar1 := get(d, d.handle.GetBAR1MemoryInfo, "nvmlDeviceGetBAR1MemoryInfo"); bar1 != nil {
		d.gpu.Bar1Bytes = bytes(bar1.Bar1Total)
	}
}

func (d device) setMemory(total, used uint64) {
	if all := bytes(total); all != nil {
		d.gpu.MemoryBytes = *all
	}
	d.gpu.MemoryUsedBytes = bytes(used)
}

func (d device) limits() {
	clock := func(domain nvml.ClockType) func() (uint32, nvml.Return) {
		return func() (uint32, nvml.Return) { return d.handle.GetMaxClockInfo(domain) }
	}
	d.gpu.MaxSmClockMhz = count(get(d, clock(nvml.CLOCK_SM), "nvmlDeviceGetMaxClockInfo"))
	d.gpu.MaxMemoryClockMhz = count(get(d, clock(nvml.CLOCK_MEM), "nvmlDeviceGetMaxClockInfo"))
	d.gpu.MemoryBusBits = count(get(d, d.handle.GetMemoryBusWidth, "nvmlDeviceGetMemoryBusWidth"))
	d.gpu.PcieGeneration = count(get(d, d.handle.GetCurrPcieLinkGeneration, "nvmlDeviceGetCurrPcieLinkGeneration"))
	d.gpu.PcieGenerationMax = count(get(d, d.handle.GetMaxPcieLinkGeneration, "nvmlDeviceGetMaxPcieLinkGeneration"))
	d.gpu.PcieWidth = count(get(d, d.handle.GetCurrPcieLinkWidth, "nvmlDeviceGetCurrPcieLinkWidth"))
	d.gpu.PcieWidthMax = count(get(d, d.handle.GetMaxPcieLinkWidth, "nvmlDeviceGetMaxPcieLinkWidth"))
}

func (d device) modes() {
	mig := get(d, func() (int, nvml.Return) {
		current, _, ret := d.handle.GetMigMode()
		return current, ret
	}, "nvmlDeviceGetMigMode")
	if mig != nil {
		enabled := *mig == nvml.DEVICE_MIG_ENABLE
		d.gpu.MigEnabled = &enabled
	}
	ecc := get(d, func() (nvml.EnableState, nvml.Return) {
		current, _, ret := d.handle.GetEccMode()
		return current, ret
	}, "nvmlDeviceGetEccMode")
	if ecc != nil {
		enabled := *ecc == nvml.FEATURE_ENABLED
		d.gpu.EccEnabled = &enabled
	}
	uncorrected := get(d, func() (uint64, nvml.Return) {
		return d.handle.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC)
	}, "nvmlDeviceGetTotalEccErrors")
	if uncorrected != nil {
		d.gpu.EccUncorrected = bytes(*uncorrected)
	}
	d.gpu.ComputeMode = named(get(d, d.handle.GetComputeMode, "nvmlDeviceGetComputeMode"), computeModes)
	d.gpu.VirtualizationMode = named(get(d, d.handle.GetVirtualizationMode, "nvmlDeviceGetVirtualizationMode"), virtualizationModes)
}

func (d device) load() {
	temperature := get(d, func() (uint32, nvml.Return) { return d.handle.GetTemperature(nvml.TEMPERATURE_GPU) }, "nvmlDeviceGetTemperature")
	d.gpu.TemperatureCelsius = count(temperature)
	d.gpu.PowerMilliwatts = count(get(d, d.handle.GetPowerUsage, "nvmlDeviceGetPowerUsage"))
	if rates := get(d, d.handle.GetUtilizationRates, "nvmlDeviceGetUtilizationRates"); rates != nil {
		d.gpu.UtilizationPercent = count(&rates.Gpu)
	}
}

var brands = map[nvml.BrandType]string{
	nvml.BRAND_QUADRO: "Quadro", nvml.BRAND_TESLA: "Tesla", nvml.BRAND_NVS: "NVS", nvml.BRAND_GRID: "GRID",
	nvml.BRAND_GEFORCE: "GeForce", nvml.BRAND_TITAN: "TITAN", nvml.BRAND_NVIDIA_VAPPS: "vApps", nvml.BRAND_NVIDIA_VPC: "vPC",
	nvml.BRAND_NVIDIA_VCS: "vCS", nvml.BRAND_NVIDIA_VWS: "vWS", nvml.BRAND_NVIDIA_CLOUD_GAMING: "Cloud Gaming",
	nvml.BRAND_QUADRO_RTX: "Quadro RTX", nvml.BRAND_NVIDIA_RTX: "NVIDIA RTX", nvml.BRAND_NVIDIA: "NVIDIA",
	nvml.BRAND_GEFORCE_RTX: "GeForce RTX", nvml.BRAND_TITAN_RTX: "TITAN RTX",
}

var architectures = map[nvml.DeviceArchitecture]string{
	nvml.DEVICE_ARCH_KEPLER: "Kepler", nvml.DEVICE_ARCH_MAXWELL: "Maxwell", nvml.DEVICE_ARCH_PASCAL: "Pascal",
	nvml.DEVICE_ARCH_VOLTA: "Volta", nvml.DEVICE_ARCH_TURING: "Turing", nvml.DEVICE_ARCH_AMPERE: "Ampere",
	nvml.DEVICE_ARCH_ADA: "Ada", nvml.DEVICE_ARCH_HOPPER: "Hopper", nvml.DEVICE_ARCH_BLACKWELL: "Blackwell",
	nvml.DEVICE_ARCH_RUBIN: "Rubin",
}

var computeModes = map[nvml.ComputeMode]string{
	nvml.COMPUTEMODE_DEFAULT: "default", nvml.COMPUTEMODE_PROHIBITED: "prohibited",
	nvml.COMPUTEMODE_EXCLUSIVE_PROCESS: "exclusive process",
}

var virtualizationModes = map[nvml.GpuVirtualizationMode]string{
	nvml.GPU_VIRTUALIZATION_MODE_NONE: "none", nvml.GPU_VIRTUALIZATION_MODE_PASSTHROUGH: "passthrough",
	nvml.GPU_VIRTUALIZATION_MODE_VGPU: "vgpu", nvml.GPU_VIRTUALIZATION_MODE_HOST_VGPU: "host vgpu",
	nvml.GPU_VIRTUALIZATION_MODE_HOST_VSGA: "host vsga",
}
