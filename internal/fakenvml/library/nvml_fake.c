/*
 * A simulation of NVIDIA's management library, for machines that have no GPU.
 *
 * It answers the few dozen calls that the inventory makes, from the file that MUSTER_FAKE_NVML_PROFILE names. Lines are
 * "key value"; "gpu" begins the next device; "#" begins a comment. A value that a profile does not give is "not supported", as
 * on a device that does not have it. Nothing here is NVIDIA's code: the prototypes are written from the documented ABI.
 *
 * Keys before the first gpu: driver, nvml, cuda, and the faults init (a return code), delay_ms (of every call) and hang (the
 * name of the call that never returns). A gpu's keys are those below, and "lost yes": its handle, name and UUID stay valid
 * while everything that would touch the hardware says that the GPU is lost, as a real driver does. Of a key that is given
 * twice, the last counts, but for "xid N": each is an event that whoever waits for events is told once, for as long as the
 * line stands. The profile is read again while somebody waits.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

typedef int ret_t;
enum {
	SUCCESS = 0,
	UNINITIALIZED = 1,
	INVALID_ARGUMENT = 2,
	NOT_SUPPORTED = 3,
	NOT_FOUND = 6,
	INSUFFICIENT_SIZE = 7,
	DRIVER_NOT_LOADED = 9,
	TIMEOUT = 10,
	GPU_IS_LOST = 15,
	UNKNOWN = 999,
};

enum { MAX_GPUS = 16, MAX_KEYS = 48, MAX_TEXT = 96 };

struct setting { char key[32], value[MAX_TEXT]; };
struct settings { int count; struct setting list[MAX_KEYS]; };

typedef struct nvmlDevice_st { struct settings own; } *device_t;

static struct settings host;
static struct nvmlDevice_st gpus[MAX_GPUS];
static int gpu_count, initialized;

/* The mark of a simulation: the inventory looks for this symbol and says so to the control plane. */
PUBLIC int musterFakeNvmlMarker(void);
int musterFakeNvmlMarker(void) { return 1; }

static const char *find(const struct settings *from, const char *key)
{
	for (int i = from->count - 1; i >= 0; i--)
		if (strcmp(from->list[i].key, key) == 0)
			return from->list[i].value;
	return NULL;
}

static int store(struct settings *into, const char *key, const char *value)
{
	if (into->count == MAX_KEYS || strlen(key) >= sizeof into->list->key || strlen(value) >= MAX_TEXT)
		return 0;
	strcpy(into->list[into->count].key, key);
	strcpy(into->list[into->count++].value, value);
	return 1;
}

static int parse_line(char *line)
{
	line[strcspn(line, "#\r\n")] = '\0';
	char *key = line + strspn(line, " \t");
	size_t length = strlen(key);
	while (length > 0 && strchr(" \t", key[length - 1]))
		key[--length] = '\0';
	if (length == 0)
		return 1;
	if (strcmp(key, "gpu") == 0)
		return gpu_count < MAX_GPUS && (gpus[gpu_count++].own.count = 0, 1);
	char *value = key + strcspn(key, " \t");
	if (*value == '\0')
		return 0;
	*value++ = '\0';
	value += strspn(value, " \t");
	return store(gpu_count == 0 ? &host : &gpus[gpu_count - 1].own, key, value);
}

static ret_t load(void)
{
	const char *path = getenv("MUSTER_FAKE_NVML_PROFILE");
	FILE *file = path ? fopen(path, "r") : NULL;
	if (file == NULL) {
		fprintf(stderr, "simulated NVML: MUSTER_FAKE_NVML_PROFILE names no profile that can be read\n");
		return UNKNOWN;
	}
	char line[256];
	int number = 0, good = 1;
	host.count = gpu_count = 0;
	while (good && fgets(line, sizeof line, file)) {
		number++;
		good = parse_line(line);
	}
	fclose(file);
	if (!good) {
		fprintf(stderr, "simulated NVML: %s: line %d is not understood\n", path, number);
		return UNKNOWN;
	}
	return SUCCESS;
}

static ret_t text(const struct settings *from, const char *key, char *out, unsigned int size)
{
	const char *value = find(from, key);
	if (value == NULL)
		return NOT_SUPPORTED;
	if (out == NULL)
		return INVALID_ARGUMENT;
	if (strlen(value) >= size)
		return INSUFFICIENT_SIZE;
	strcpy(out, value);
	return SUCCESS;
}

static ret_t number(const struct settings *from, const char *key, unsigned long long *out)
{
	const char *value = find(from, key);
	if (value == NULL)
		return NOT_SUPPORTED;
	char *end;
	*out = strtoull(value, &end, 0);
	return *end == '\0' ? SUCCESS : UNKNOWN;
}

static void inject(const char *call)
{
	unsigned long long delay_ms;
	const char *hang = find(&host, "hang");
	if (number(&host, "delay_ms", &delay_ms) == SUCCESS) {
		struct timespec delay = { (time_t)(delay_ms / 1000), (long)(delay_ms % 1000) * 1000000 };
		nanosleep(&delay, NULL);
	}
	while (hang != NULL && strcmp(hang, call) == 0)
		pause();
}

static ret_t enter(const char *call)
{
	if (!initialized)
		return UNINITIALIZED;
	inject(call);
	return SUCCESS;
}

/* For calls that read what the driver keeps in memory. */
static ret_t enter_device(const char *call, device_t device)
{
	ret_t ret = enter(call);
	if (ret == SUCCESS && (device < gpus || device >= gpus + gpu_count))
		ret = INVALID_ARGUMENT;
	return ret;
}

/* For calls that touch the hardware. */
static ret_t enter_hardware(const char *call, device_t device)
{
	ret_t ret = enter_device(call, device);
	if (ret == SUCCESS && find(&device->own, "lost"))
		ret = GPU_IS_LOST;
	return ret;
}

static ret_t device_number(const char *call, device_t device, const char *key, unsigned long long *out)
{
	ret_t ret = enter_hardware(call, device);
	if (ret == SUCCESS && out == NULL)
		ret = INVALID_ARGUMENT;
	return ret == SUCCESS ? number(&device->own, key, out) : ret;
}

static ret_t device_uint(const char *call, device_t device, const char *key, unsigned int *out)
{
	unsigned long long value = 0;
	ret_t ret = device_number(call, device, key, &value);
	if (ret == SUCCESS && (out == NULL || value > UINT_MAX))
		ret = INVALID_ARGUMENT;
	if (ret == SUCCESS)
		*out = (unsigned int)value;
	return ret;
}

static ret_t device_text(const char *call, device_t device, const char *key, char *out, unsigned int size)
{
	ret_t ret = enter_hardware(call, device);
	return ret == SUCCESS ? text(&device->own, key, out, size) : ret;
}

/* ---- the library's life ---- */

PUBLIC ret_t nvmlInit_v2(void)
{
	unsigned long long failure;
	ret_t ret = load();
	if (ret != SUCCESS)
		return ret;
	inject("nvmlInit_v2");
	if (number(&host, "init", &failure) == SUCCESS)
		return (ret_t)failure;
	initialized = 1;
	return SUCCESS;
}

PUBLIC ret_t nvmlShutdown(void)
{
	ret_t ret = enter("nvmlShutdown");
	initialized = 0;
	return ret;
}

PUBLIC const char *nvmlErrorString(ret_t code)
{
	switch (code) {
	case SUCCESS: return "Success";
	case UNINITIALIZED: return "Uninitialized";
	case INVALID_ARGUMENT: return "Invalid Argument";
	case NOT_SUPPORTED: return "Not Supported";
	case NOT_FOUND: return "Not Found";
	case INSUFFICIENT_SIZE: return "Insufficient Size";
	case DRIVER_NOT_LOADED: return "Driver Not Loaded";
	case TIMEOUT: return "Timeout";
	case GPU_IS_LOST: return "GPU is lost";
	default: return "Unknown Error";
	}
}

/* ---- the host ---- */

PUBLIC ret_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
	ret_t ret = enter("nvmlSystemGetDriverVersion");
	return ret == SUCCESS ? text(&host, "driver", version, length) : ret;
}

PUBLIC ret_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
	ret_t ret = enter("nvmlSystemGetNVMLVersion");
	return ret == SUCCESS ? text(&host, "nvml", version, length) : ret;
}

PUBLIC ret_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
	unsigned long long value;
	ret_t ret = enter("nvmlSystemGetCudaDriverVersion_v2");
	if (ret == SUCCESS)
		ret = number(&host, "cuda", &value);
	if (ret == SUCCESS)
		*version = (int)value;
	return ret;
}

PUBLIC ret_t nvmlDeviceGetCount_v2(unsigned int *count)
{
	ret_t ret = enter("nvmlDeviceGetCount_v2");
	if (ret == SUCCESS)
		*count = (unsigned int)gpu_count;
	return ret;
}

PUBLIC ret_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, device_t *device)
{
	ret_t ret = enter("nvmlDeviceGetHandleByIndex_v2");
	if (ret != SUCCESS)
		return ret;
	if (index >= (unsigned int)gpu_count)
		return INVALID_ARGUMENT;
	*device = &gpus[index];
	return SUCCESS;
}

/* ---- a device: what the driver keeps ---- */

PUBLIC ret_t nvmlDeviceGetName(device_t device, char *name, unsigned int length)
{
	ret_t ret = enter_device("nvmlDeviceGetName", device);
	return ret == SUCCESS ? text(&device->own, "name", name, length) : ret;
}

PUBLIC ret_t nvmlDeviceGetUUID(device_t device, char *uuid, unsigned int length)
{
	ret_t ret = enter_device("nvmlDeviceGetUUID", device);
	return ret == SUCCESS ? text(&device->own, "uuid", uuid, length) : ret;
}

/* ---- a device: what is read from the hardware ---- */

#define TEXT_CALL(call, key) \
	PUBLIC ret_t call(device_t device, char *out, unsigned int length) \
	{ \
		return device_text(#call, device, key, out, length); \
	}
#define UINT_CALL(call, key) \
	PUBLIC ret_t call(device_t device, unsigned int *out) \
	{ \
		return device_uint(#call, device, key, out); \
	}

TEXT_CALL(nvmlDeviceGetSerial, "serial")
TEXT_CALL(nvmlDeviceGetBoardPartNumber, "board_part_number")
TEXT_CALL(nvmlDeviceGetVbiosVersion, "vbios")
UINT_CALL(nvmlDeviceGetBrand, "brand")
UINT_CALL(nvmlDeviceGetArchitecture, "architecture")
UINT_CALL(nvmlDeviceGetNumGpuCores, "cores")
UINT_CALL(nvmlDeviceGetMemoryBusWidth, "memory_bus_bits")
UINT_CALL(nvmlDeviceGetCurrPcieLinkGeneration, "pcie_generation")
UINT_CALL(nvmlDeviceGetMaxPcieLinkGeneration, "pcie_generation_max")
UINT_CALL(nvmlDeviceGetCurrPcieLinkWidth, "pcie_width")
UINT_CALL(nvmlDeviceGetMaxPcieLinkWidth, "pcie_width_max")
UINT_CALL(nvmlDeviceGetPowerUsage, "power_milliwatts")
UINT_CALL(nvmlDeviceGetComputeMode, "compute_mode")
UINT_CALL(nvmlDeviceGetVirtualizationMode, "virtualization_mode")

PUBLIC ret_t nvmlDeviceGetMaxClockInfo(device_t device, unsigned int domain, unsigned int *clock)
{
	enum { SM = 1, MEMORY = 2 };
	if (domain != SM && domain != MEMORY)
		return NOT_SUPPORTED;
	return device_uint("nvmlDeviceGetMaxClockInfo", device, domain == SM ? "max_sm_clock_mhz" : "max_memory_clock_mhz", clock);
}

PUBLIC ret_t nvmlDeviceGetTemperature(device_t device, unsigned int sensor, unsigned int *celsius)
{
	(void)sensor;
	return device_uint("nvmlDeviceGetTemperature", device, "temperature_celsius", celsius);
}

PUBLIC ret_t nvmlDeviceGetCudaComputeCapability(device_t device, int *major, int *minor)
{
	char value[MAX_TEXT];
	ret_t ret = device_text("nvmlDeviceGetCudaComputeCapability", device, "compute_capability", value, sizeof value);
	if (ret == SUCCESS && sscanf(value, "%d.%d", major, minor) != 2)
		ret = UNKNOWN;
	return ret;
}

static ret_t switch_mode(const char *call, device_t device, const char *key, unsigned int *current, unsigned int *pending)
{
	ret_t ret = device_uint(call, device, key, current);
	if (ret == SUCCESS)
		*pending = *current;
	return ret;
}

PUBLIC ret_t nvmlDeviceGetMigMode(device_t device, unsigned int *current, unsigned int *pending)
{
	return switch_mode("nvmlDeviceGetMigMode", device, "mig", current, pending);
}

PUBLIC ret_t nvmlDeviceGetEccMode(device_t device, unsigned int *current, unsigned int *pending)
{
	return switch_mode("nvmlDeviceGetEccMode", device, "ecc", current, pending);
}

PUBLIC ret_t nvmlDeviceGetTotalEccErrors(device_t device, unsigned int type, unsigned int counter, unsigned long long *count)
{
	enum { UNCORRECTED = 1 };
	(void)counter;
	return device_number("nvmlDeviceGetTotalEccErrors", device, type == UNCORRECTED ? "ecc_uncorrected" : "ecc_corrected", count);
}

struct utilization { unsigned int gpu, memory; };

PUBLIC ret_t nvmlDeviceGetUtilizationRates(device_t device, struct utilization *rates)
{
	ret_t ret = device_uint("nvmlDeviceGetUtilizationRates", device, "utilization_percent", &rates->gpu);
	rates->memory = 0;
	return ret;
}

struct memory { unsigned long long total, free, used; };
struct memory_v2 { unsigned int version; unsigned long long total, reserved, free, used; };
struct bar1 { unsigned long long total, free, used; };

static ret_t memory(const char *call, device_t device, struct memory *out)
{
	ret_t ret = device_number(call, device, "memory_bytes", &out->total);
	if (ret == SUCCESS && number(&device->own, "memory_used_bytes", &out->used) != SUCCESS)
		out->used = 0;
	out->free = out->total - out->used;
	return ret;
}

PUBLIC ret_t nvmlDeviceGetMemoryInfo(device_t device, struct memory *out)
{
	return memory("nvmlDeviceGetMemoryInfo", device, out);
}

PUBLIC ret_t nvmlDeviceGetMemoryInfo_v2(device_t device, struct memory_v2 *out)
{
	struct memory all = { 0, 0, 0 };
	ret_t ret = memory("nvmlDeviceGetMemoryInfo_v2", device, &all);
	out->total = all.total;
	out->reserved = 0;
	out->free = all.free;
	out->used = all.used;
	return ret;
}

PUBLIC ret_t nvmlDeviceGetBAR1MemoryInfo(device_t device, struct bar1 *out)
{
	ret_t ret = device_number("nvmlDeviceGetBAR1MemoryInfo", device, "bar1_bytes", &out->total);
	out->used = 0;
	out->free = out->total;
	return ret;
}

struct pci {
	char bus_id_legacy[16];
	unsigned int domain, bus, device, device_id, subsystem_id;
	char bus_id[32];
};

PUBLIC ret_t nvmlDeviceGetPciInfo_v3(device_t device, struct pci *out)
{
	unsigned int function;
	ret_t ret = device_text("nvmlDeviceGetPciInfo_v3", device, "pci_bus_id", out->bus_id, sizeof out->bus_id);
	if (ret != SUCCESS)
		return ret;
	if (sscanf(out->bus_id, "%x:%x:%x.%x", &out->domain, &out->bus, &out->device, &function) != 4)
		return UNKNOWN;
	snprintf(out->bus_id_legacy, sizeof out->bus_id_legacy, "%04x:%02x:%02x.0",
		 out->domain & 0xffff, out->bus & 0xff, out->device & 0x1f);
	unsigned long long id = 0, subsystem = 0;
	if (number(&device->own, "pci_device_id", &id) != SUCCESS)
		return UNKNOWN;
	if (number(&device->own, "pci_subsystem_id", &subsystem) != SUCCESS)
		return UNKNOWN;
	out->device_id = (unsigned int)id;
	out->subsystem_id = (unsigned int)subsystem;
	return SUCCESS;
}

/* ---- a device: its health ---- */

PUBLIC ret_t nvmlDeviceGetCurrentClocksEventReasons(device_t device, unsigned long long *reasons)
{
	return device_number("nvmlDeviceGetCurrentClocksEventReasons", device, "clocks_event_reasons", reasons);
}

PUBLIC ret_t nvmlDeviceGetCurrentClocksThrottleReasons(device_t device, unsigned long long *reasons)
{
	return device_number("nvmlDeviceGetCurrentClocksThrottleReasons", device, "clocks_event_reasons", reasons);
}

PUBLIC ret_t nvmlDeviceGetRetiredPagesPendingStatus(device_t device, unsigned int *pending)
{
	return device_uint("nvmlDeviceGetRetiredPagesPendingStatus", device, "pages_pending", pending);
}

PUBLIC ret_t nvmlDeviceGetRemappedRows(device_t device, unsigned int *corrected, unsigned int *uncorrected,
				       unsigned int *pending, unsigned int *failed)
{
	ret_t ret = device_uint("nvmlDeviceGetRemappedRows", device, "rows_pending", pending);
	*corrected = *uncorrected = *failed = 0;
	return ret;
}

/* ---- events ---- */

enum { XID_CRITICAL_ERROR = 8, MAX_XIDS = 64, POLL_MS = 20 };

struct event { device_t device; unsigned long long type, data; unsigned int gpu_instance, compute_instance; };

/* One set is all that a process needs; what it was told of each GPU is kept by the GPU's place. */
static struct nvmlEventSet_st {
	int in_use, registered[MAX_GPUS], told_count[MAX_GPUS];
	unsigned long long told[MAX_GPUS][MAX_XIDS];
} events;

typedef struct nvmlEventSet_st *event_set_t;

PUBLIC ret_t nvmlEventSetCreate(event_set_t *set)
{
	ret_t ret = enter("nvmlEventSetCreate");
	if (ret != SUCCESS)
		return ret;
	if (events.in_use)
		return NOT_SUPPORTED;
	memset(&events, 0, sizeof events);
	events.in_use = 1;
	*set = &events;
	return SUCCESS;
}

PUBLIC ret_t nvmlEventSetFree(event_set_t set)
{
	ret_t ret = enter("nvmlEventSetFree");
	if (ret == SUCCESS)
		set->in_use = 0;
	return ret;
}

PUBLIC ret_t nvmlDeviceGetSupportedEventTypes(device_t device, unsigned long long *types)
{
	ret_t ret = enter_device("nvmlDeviceGetSupportedEventTypes", device);
	if (ret == SUCCESS)
		*types = XID_CRITICAL_ERROR;
	return ret;
}

PUBLIC ret_t nvmlDeviceRegisterEvents(device_t device, unsigned long long types, event_set_t set)
{
	ret_t ret = enter_device("nvmlDeviceRegisterEvents", device);
	if (ret == SUCCESS && types != XID_CRITICAL_ERROR)
		ret = NOT_SUPPORTED;
	if (ret == SUCCESS)
		set->registered[device - gpus] = 1;
	return ret;
}

static int has_xid(const struct settings *own, unsigned long long xid)
{
	for (int i = 0; i < own->count; i++)
		if (strcmp(own->list[i].key, "xid") == 0 && strtoull(own->list[i].value, NULL, 0) == xid)
			return 1;
	return 0;
}

/* Forgets what a GPU's profile no longer says, so that it can happen again. */
static void forget(event_set_t set, int gpu)
{
	int kept = 0;
	for (int i = 0; i < set->told_count[gpu]; i++)
		if (has_xid(&gpus[gpu].own, set->told[gpu][i]))
			set->told[gpu][kept++] = set->told[gpu][i];
	set->told_count[gpu] = kept;
}

static int was_told(event_set_t set, int gpu, unsigned long long xid)
{
	for (int i = 0; i < set->told_count[gpu]; i++)
		if (set->told[gpu][i] == xid)
			return 1;
	return set->told_count[gpu] == MAX_XIDS;
}

static int next_event(event_set_t set, struct event *out)
{
	for (int gpu = 0; gpu < gpu_count; gpu++) {
		const struct settings *own = &gpus[gpu].own;
		forget(set, gpu);
		for (int i = 0; set->registered[gpu] && i < own->count; i++) {
			if (strcmp(own->list[i].key, "xid") != 0)
				continue;
			unsigned long long xid = strtoull(own->list[i].value, NULL, 0);
			if (was_told(set, gpu, xid))
				continue;
			set->told[gpu][set->told_count[gpu]++] = xid;
			*out = (struct event){ &gpus[gpu], XID_CRITICAL_ERROR, xid, 0xffffffff, 0xffffffff };
			return 1;
		}
	}
	return 0;
}

static ret_t wait_for_event(const char *call, event_set_t set, struct event *out, unsigned int timeout_ms)
{
	struct timespec pause = { 0, POLL_MS * 1000000L };
	ret_t ret = enter(call);
	for (unsigned int waited = 0; ret == SUCCESS; waited += POLL_MS) {
		ret = load();
		if (ret == SUCCESS)
			inject(call);
		if (ret == SUCCESS && next_event(set, out))
			return SUCCESS;
		if (ret == SUCCESS && waited >= timeout_ms)
			return TIMEOUT;
		nanosleep(&pause, NULL);
	}
	return ret;
}

PUBLIC ret_t nvmlEventSetWait(event_set_t set, struct event *out, unsigned int timeout_ms)
{
	return wait_for_event("nvmlEventSetWait", set, out, timeout_ms);
}

PUBLIC ret_t nvmlEventSetWait_v2(event_set_t set, struct event *out, unsigned int timeout_ms)
{
	return wait_for_event("nvmlEventSetWait_v2", set, out, timeout_ms);
}
