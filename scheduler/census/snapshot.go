package census

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// snapshot is a pg_snapshot: which transactions a statement sees.
type snapshot struct {
	xmin, xmax uint64
	running    []uint64 // between the two
}

// parseSnapshot reads the text form, "xmin:xmax:xip,xip".
func parseSnapshot(text string) (snapshot, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return snapshot{}, fmt.Errorf("%q is not a snapshot", text)
	}
	var s snapshot
	var err error
	if s.xmin, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return snapshot{}, err
	}
	if s.xmax, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return snapshot{}, err
	}
	for xip := range strings.SplitSeq(parts[2], ",") {
		if xip == "" {
			continue
		}
		running, err := strconv.ParseUint(xip, 10, 64)
		if err != nil {
			return snapshot{}, err
		}
		s.running = append(s.running, running)
	}
	return s, nil
}

// sees reports whether a transaction had ended when the snapshot was taken.
func (s snapshot) sees(xid uint64) bool {
	return xid < s.xmin || xid < s.xmax && !slices.Contains(s.running, xid)
}
