package fleet_test

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/scheduler/fleet"
)

func marshalled(t rapid.TB, message *agentpb.AgentMessage) []byte {
	t.Helper()
	bytes, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

func TestHeartbeatsAreKnownByTheirBytes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		beat := &agentpb.Heartbeat{Sequence: rapid.Int64().Draw(r, "sequence")}
		if bytes := marshalled(r, &agentpb.AgentMessage{Body: &agentpb.AgentMessage_Heartbeat{Heartbeat: beat}}); !fleet.IsHeartbeat(bytes) {
			r.Errorf("% x is not known", bytes)
		}
	})
}

// TestWhatIsKnownAsAHeartbeatIsOne damages messages and holds the gateway's short look to what protobuf says.
func TestWhatIsKnownAsAHeartbeatIsOne(t *testing.T) {
	t.Parallel()
	known := 0
	rapid.Check(t, func(r *rapid.T) {
		bytes := marshalled(r, rapid.SampledFrom([]*agentpb.AgentMessage{
			{Body: &agentpb.AgentMessage_Heartbeat{Heartbeat: &agentpb.Heartbeat{Sequence: 1}}},
			{Body: &agentpb.AgentMessage_Heartbeat{Heartbeat: &agentpb.Heartbeat{Sequence: 1 << 40}}},
			{Body: &agentpb.AgentMessage_Report{Report: &agentpb.Report{AppliedGeneration: 1}}},
			{Body: &agentpb.AgentMessage_Hello{Hello: &agentpb.Hello{ProtocolVersion: 2}}},
			{},
		}).Draw(r, "message"))
		for range rapid.IntRange(0, 3).Draw(r, "changes") {
			bytes = append(bytes, rapid.SliceOfN(rapid.Byte(), 0, 2).Draw(r, "more")...)
			if len(bytes) > 0 {
				bytes[rapid.IntRange(0, len(bytes)-1).Draw(r, "at")] = rapid.SampledFrom([]byte{0, 1, 2, 3, 8, 26, 127, 128, 255}).Draw(r, "byte")
			}
		}
		if !fleet.IsHeartbeat(bytes) {
			return
		}
		known++
		var message agentpb.AgentMessage
		if err := proto.Unmarshal(bytes, &message); err != nil || message.GetHeartbeat() == nil {
			r.Errorf("% x is %v, %v", bytes, &message, err)
		}
	})
	if known == 0 {
		t.Error("no message was known as a heartbeat")
	}
}
