package rayaddr_test

import (
	"net/netip"
	"reflect"
	"regexp"
	"strconv"
	"testing"

	"github.com/muster-gpu/muster/internal/rayaddr"
	"github.com/muster-gpu/muster/internal/testkit"
)

// firstEphemeral is where Linux begins to choose ports for outgoing connections.
const firstEphemeral = 32_768

func TestSlotsHaveAddressesOfTheirOwn(t *testing.T) {
	t.Parallel()
	owner := make(map[netip.Addr]int)
	for slot := range rayaddr.Slots {
		address, err := netip.ParseAddr(rayaddr.Address(slot))
		if err != nil {
			t.Fatalf("slot %d: %v", slot, err)
		}
		if !address.IsLoopback() || address == netip.MustParseAddr("127.0.0.1") {
			t.Errorf("slot %d has %s, which is not a loopback address that Ray keeps", slot, address)
		}
		if other, taken := owner[address]; taken {
			t.Errorf("slots %d and %d share %s", other, slot, address)
		}
		owner[address] = slot
	}
}

func TestSlotsHavePortsOfTheirOwn(t *testing.T) {
	t.Parallel()
	owner := make(map[int]int)
	for slot := range rayaddr.Slots {
		ports := rayaddr.PortsFrom(rayaddr.PortBase(slot), rayaddr.PortCount)
		if ports.MinWorker >= ports.MaxWorker {
			t.Fatalf("slot %d has no ports for workers: %+v", slot, ports)
		}
		for _, port := range allOf(ports) {
			if port < 1024 || port >= firstEphemeral {
				t.Errorf("slot %d uses port %d", slot, port)
			}
			if other, taken := owner[port]; taken {
				t.Errorf("port %d is of slot %d and of slot %d", port, other, slot)
			}
			owner[port] = slot
			if port < rayaddr.PortBase(slot) || port >= rayaddr.PortBase(slot)+rayaddr.PortCount {
				t.Errorf("slot %d uses port %d, outside its range", slot, port)
			}
		}
	}
}

// allOf lists every port that the fields name, workers' range included.
func allOf(ports rayaddr.Ports) []int {
	var all []int
	fields := reflect.ValueOf(ports)
	for i := range fields.NumField() {
		if name := fields.Type().Field(i).Name; name != "MinWorker" && name != "MaxWorker" {
			all = append(all, int(fields.Field(i).Int()))
		}
	}
	for port := ports.MinWorker; port <= ports.MaxWorker; port++ {
		all = append(all, port)
	}
	return all
}

func TestTheSchemaHasTheSameSlots(t *testing.T) {
	t.Parallel()
	var check string
	err := testkit.DB(t).QueryRow(t.Context(), `SELECT pg_get_constraintdef(oid) FROM pg_constraint
		WHERE conrelid = 'nodes'::regclass AND contype = 'c' AND pg_get_constraintdef(oid) LIKE '%slot%'`).Scan(&check)
	if err != nil {
		t.Fatal(err)
	}
	bounds := regexp.MustCompile(`slot >= (\d+)\) AND \(slot <= (\d+)\)`).FindStringSubmatch(check)
	if bounds == nil {
		t.Fatalf("the check on nodes.slot is %s", check)
	}
	if bounds[1] != "0" || bounds[2] != strconv.Itoa(rayaddr.Slots-1) {
		t.Errorf("the schema has slots %s to %s, the package 0 to %d", bounds[1], bounds[2], rayaddr.Slots-1)
	}
}
