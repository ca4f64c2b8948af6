package inventory

import (
	"bufio"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/muster-gpu/muster/internal/agentpb"
)

// addHostFacts adds what the machine says of itself; what cannot be read stays absent.
func addHostFacts(inventory *agentpb.Inventory, o Options) {
	inventory.Cpus = int32(runtime.NumCPU())
	inventory.MemoryBytes = readWith("/proc/meminfo", totalMemory)
	inventory.Os = readWith("/etc/os-release", prettyName)
	inventory.Kernel = readWith("/proc/sys/kernel/osrelease", firstLine)
	inventory.DiskFreeBytes = diskFree(o.DiskPath)
	inventory.RayVersions = o.RayVersions
	inventory.Runtime = o.Runtime
}

func readWith[T any](path string, parse func(io.Reader) T) T {
	file, err := os.Open(path)
	if err != nil {
		var none T
		return none
	}
	defer func() { _ = file.Close() }()
	return parse(file)
}

func totalMemory(meminfo io.Reader) int64 {
	for lines := bufio.NewScanner(meminfo); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) == 3 && fields[0] == "MemTotal:" && fields[2] == "kB" {
			kilobytes, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return 0
			}
			return kilobytes * 1024
		}
	}
	return 0
}

func prettyName(osRelease io.Reader) string {
	for lines := bufio.NewScanner(osRelease); lines.Scan(); {
		if value, found := strings.CutPrefix(lines.Text(), "PRETTY_NAME="); found {
			return strings.Trim(value, `"'`)
		}
	}
	return ""
}

func firstLine(r io.Reader) string {
	lines := bufio.NewScanner(r)
	lines.Scan()
	return strings.TrimSpace(lines.Text())
}

func diskFree(path string) int64 {
	var fs syscall.Statfs_t
	if path == "" || syscall.Statfs(path, &fs) != nil {
		return 0
	}
	return int64(fs.Bavail) * fs.Bsize
}
