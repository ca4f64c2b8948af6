package fleet

import (
	"encoding/binary"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"github.com/muster-gpu/muster/internal/agentpb"
)

// codec is gRPC's own, but that it tells heartbeats, which are most of what is said, by their bytes: nothing of them is kept, and so nothing
// is made of them.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

// inbound receives an agent's message. message is nil for a heartbeat.
type inbound struct{ message *agentpb.AgentMessage }

func (in *inbound) isHeartbeat() bool { return in.message == nil || in.message.GetHeartbeat() != nil }

// whole is the message, a heartbeat too.
func (in *inbound) whole() *agentpb.AgentMessage {
	if in.message == nil {
		return &agentpb.AgentMessage{Body: &agentpb.AgentMessage_Heartbeat{Heartbeat: &agentpb.Heartbeat{}}}
	}
	return in.message
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*inbound)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	in.message = nil
	if len(data) == 1 && isHeartbeat(data[0].ReadOnlyData()) {
		return nil
	}
	in.message = &agentpb.AgentMessage{}
	return c.CodecV2.Unmarshal(data, in.message)
}

// The two tags of a heartbeat: AgentMessage.heartbeat, which is a message, and Heartbeat.sequence, which is a varint.
const (
	tagHeartbeat = 3<<3 | 2
	tagSequence  = 1 << 3
)

// isHeartbeat reports whether a message is a heartbeat as agents write them. Others that are one are taken apart as all else is.
func isHeartbeat(message []byte) bool {
	if len(message) < 2 || message[0] != tagHeartbeat || int(message[1]) != len(message)-2 {
		return false
	}
	body := message[2:]
	if len(body) == 0 {
		return true // the sequence is 0
	}
	if body[0] != tagSequence {
		return false
	}
	_, n := binary.Uvarint(body[1:])
	return n == len(body)-1 && n > 0
}
