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

// open loads a library into this process, for good, and starts NVML. missing is true for a host without the library.
func open(name string) (api library, missing bool, err error) {
	loaded := dl.New(name, dl.RTLD_LAZY|dl.RTLD_GLOBAL)
	if err := loaded.Open(); err != nil {
		return api, true, fmt.Errorf("the NVML library cannot be loaded: %w", err)
	}
	api.simulated = loaded.Lookup(simulationMarker) == nil
	for _, symbol := range []string{"nvmlInit_v2", "nvmlShutdown", "nvmlErrorString"} { // called without a guard
		if err := loaded.Lookup(symbol); err != nil {
			return api, false, fmt.Errorf("%s is no usable NVML library: %w", name, err)
		}
	}
	api.Interface = nvml.New(nvml.WithLibraryPath(name))
	if ret := api.Init(); ret != nvml.SUCCESS {
		return api, false, fmt.Errorf("NVML did not start: %w", ret)
	}
	return api, false, nil
}

// readNVML reads every GPU and its health. A host without the library has no GPUs, which is an error only where the library was asked
// for by name.
func readNVML(name string, required bool) (*agentpb.Inventory, []*agentpb.GPUHealth) {
	inventory := &agentpb.Inventory{}
	api, missing, err := open(name)
	inventory.Simulated = api.simulated
	if err != nil {
		if !missing || required {
			inventory.ProbeError = err.Error()
		}
		return inventory, nil
	}
	defer func() { _ = api.Shutdown() }() // the process ends next
	health, err := api.fill(inventory)
	if err != nil {
		inventory.Gpus, inventory.ProbeError = nil, err.Error()
		return inventory, nil
	}
	return inventory, health
}

// library guards calls by whether the driver has them.
type library struct {
	nvml.Interface
	simulated bool
}

// has reports whether the library has any of the symbols: several versions may serve one call.
func (l library) has(symbols ...string) bool {
	for _, symbol := range symbols {
		if l.Extensions().LookupSymbol(symbol) == nil {
			return true
		}
	}
	return false
}

func (l library) fill(inventory *agentpb.Inventory) ([]*agentpb.GPUHealth, error) {
	inventory.DriverVersion = text(l, l.SystemGetDriverVersion, "nvmlSystemGetDriverVersion")
	inventory.NvmlVersion = text(l, l.SystemGetNVMLVersion, "nvmlSystemGetNVMLVersion")
	if l.has("nvmlSystemGetCudaDriverVersion_v2") {
		if version, ret := l.SystemGetCudaDriverVersion_v2(); ret == nvml.SUCCESS {
			inventory.CudaVersion = fmt.Sprintf("%d.%d", version/1000, version%1000/10)
		}
	}
	if !l.has("nvmlDeviceGetCount_v2", "nvmlDeviceGetCount") || !l.has("nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex") {
		return nil, fmt.Errorf("this NVML is too old to list GPUs: update the driver")
	}
	count, ret := l.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("NVML does not count the GPUs: %w", ret)
	}
	var health []*agentpb.GPUHealth
	for i := range min(count, maxGPUs) {
		gpu, sound := l.readGPU(i)
		inventory.Gpus = append(inventory.Gpus, gpu)
		if sound.GetUuid() != "" {
			health = append(health, sound)
		}
	}
	return health, nil
}

// readGPU reads one GPU. What is wrong with it stands in its fault, so that one broken GPU does not hide the others.
func (l library) readGPU(index int) (*agentpb.GPU, *agentpb.GPUHealth) {
	gpu := &agentpb.GPU{Ordinal: int32(index)}
	handle, ret := l.DeviceGetHandleByIndex(index)
	if ret != nvml.SUCCESS {
		gpu.Fault = "it has no handle: " + ret.Error()
		return gpu, nil
	}
	d := device{library: l, handle: handle, gpu: gpu}
	d.identity()
	d.board()
	d.limits()
	d.modes()
	d.load()
	health := d.health()
	if gpu.Fault == "" && (gpu.Uuid == "" || gpu.Product == "" || gpu.MemoryBytes == 0) {
		gpu.Fault = "the driver does not say what it is"
	}
	return gpu, health
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
