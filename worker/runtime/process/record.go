package process

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/muster-gpu/muster/internal/agentpb"
)

const recordVersion = 1

type recordState string

const (
	intended recordState = "intended" // the process may or may not have been started
	started  recordState = "started"  // its pid is known
	healthy  recordState = "healthy"  // and Ray's health check has answered
	stopped  recordState = "stopped"  // as desired; nothing of it runs
	failed   recordState = "failed"   // ended by itself; nothing of it runs
)

// record is what the disk says of a node. It never holds the token.
type record struct {
	Version int             `json:"version"`
	State   recordState     `json:"state"`
	Spec    json.RawMessage `json:"spec"`
	Process identity        `json:"process"`
	Message string          `json:"message,omitempty"`
}

func newRecord(spec *agentpb.NodeSpec) (record, error) {
	bare, _ := proto.Clone(spec).(*agentpb.NodeSpec)
	bare.RayToken = ""
	text, err := protojson.Marshal(bare)
	if err != nil {
		return record{}, fmt.Errorf("encode node %s: %w", spec.GetNodeId(), err)
	}
	return record{Version: recordVersion, State: intended, Spec: text}, nil
}

func (r record) spec() (*agentpb.NodeSpec, error) {
	spec := &agentpb.NodeSpec{}
	return spec, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(r.Spec, spec)
}

func readRecord(path string) (record, error) {
	var r record
	text, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("read %s: %w", path, err)
	}
	if r.Version != recordVersion {
		return r, fmt.Errorf("read %s: version %d is not known", path, r.Version)
	}
	return r, nil
}

// write replaces the file at path; after a crash it holds the old record or the new one.
func (r record) write(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return replaceFile(path, append(text, '\n'))
}

func replaceFile(path string, content []byte) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	if _, err = file.Write(content); err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(file.Name(), path)
}
