package inventory

import (
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/muster-gpu/muster/internal/agentpb"
)

const (
	defaultLibrary = "libnvidia-ml.so.1"
	// simulationMarker is the symbol by which a simulated NVML says that it is one.
	simulationMarker = "musterFakeNvmlMarker"
	maxGPUs          = 64
)

// readNVML loads a library into this process, for good, and reads every GPU through it. A host without the library has no
// GPUs, which is an error only where the library was asked for by name.
func readNVML(name string, required bool) *agentpb.Inventory {
	inventory := &agentpb.Inventory{}
	loaded := dl.New(name, dl.RTLD_LAZY|dl.RTLD_GLOBAL)
	if err := loaded.Open(); err != nil {
		if required {
			inventory.ProbeError = fmt.Sprintf("the NVML library cannot be loaded: %v", err)
		}
		return inventory
	}
	inventory.Simulated = loaded.Lookup(simulationMarker) == nil
	for _, symbol := range []string{"nvmlInit_v2", "nvmlShutdown", "nvmlErrorString"} { // called without a guard below
		if err := loaded.Lookup(symbol); err != nil {
			inventory.ProbeError = fmt.Sprintf("%s is no usable NVML library: %v", name, err)
			return inventory
		}
	}
	api := library{nvml.New(nvml.WithLibraryPath(name))}
	if ret := api.Init(); ret != nvml.SUCCESS {
		inventory.ProbeError = "NVML did not start: " + ret.Error()
		return inventory
	}
	defer func() { _ = api.Shutdown() }() // the process ends next
	if err := api.fill(inventory); err != nil {
		inventory.Gpus, inventory.ProbeError = nil, err.Error()
	}
	return inventory
}

// library guards calls by whether the driver has them.
type library struct{ nvml.Interface }

// has reports whether the library has any of the symbols: several versions may serve one call.
func (l library) has(symbols ...string) bool {
	for _, symbol := range symbols {
		if l.Extensions().LookupSymbol(symbol) == nil {
			return true
		}
	}
	return false
}

func (l library) fill(inventory *agentpb.Inventory) error {
	inventory.DriverVersion = text(l, l.SystemGetDriverVersion, "nvmlSystemGetDriverVersion")
	inventory.NvmlVersion = text(l, l.SystemGetNVMLVersion, "nvmlSystemGetNVMLVersion")
	if l.has("nvmlSystemGetCudaDriverVersion_v2") {
		if version, ret := l.SystemGetCudaDriverVersion_v2(); ret == nvml.SUCCESS {
			inventory.CudaVersion = fmt.Sprintf("%d.%d", version/1000, version%1000/10)
		}
	}
	if !l.has("nvmlDeviceGetCount_v2", "nvmlDeviceGetCount") || !l.has("nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex") {
		return fmt.Errorf("this NVML is too old to list GPUs: update the driver")
	}
	count, ret := l.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return fmt.Errorf("NVML does not count the GPUs: %w", ret)
	}
	for i := range min(count, maxGPUs) {
		inventory.Gpus = append(inventory.Gpus, l.readGPU(i))
	}
	return nil
}

// readGPU reads one GPU. What is wrong with it stands in its fault, so that one broken GPU does not hide the others.
func (l library) readGPU(index int) *agentpb.GPU {
	gpu := &agentpb.GPU{Ordinal: int32(index)}
	handle, ret := l.DeviceGetHandleByIndex(index)
	if ret != nvml.SUCCESS {
		gpu.Fault = "it has no handle: " + ret.Error()
		return gpu
	}
	d := device{library: l, handle: handle, gpu: gpu}
	d.identity()
	d.board()
	d.limits()
	d.modes()
	d.load()
	if gpu.Fault == "" && (gpu.Uuid == "" || gpu.Product == "" || gpu.MemoryBytes == 0) {
		gpu.Fault = "the driver does not say what it is"
	}
	return gpu
}

// text reads a value of the host, "" if there is none.
func text(l library, call func() (string, nvml.Return), symbol string) string {
	if !l.has(symbol) {
		return ""
	}
	value, ret := call()
	if ret != nvml.SUCCESS {
		return ""
	}
	return value
}
