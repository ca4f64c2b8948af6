package ids_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/ids"
)

func TestTextRoundTripKeepsOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := ids.Cluster(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "a"))
		b := ids.Cluster(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "b"))
		var back ids.Cluster
		err := back.UnmarshalText([]byte(a.String()))
		if err != nil || back != a {
			t.Fatalf("%v reads back as %v, %v", a, back, err)
		}
		if !a.IsZero() && !b.IsZero() && slices.Compare(a[:], b[:]) < 0 != (a.String() < b.String()) {
			t.Fatalf("text order differs from byte order: %v %v", a, b)
		}
	})
}

func TestUnmarshalRefusesOtherKindsAndNonsense(t *testing.T) {
	t.Parallel()
	host := ids.New[ids.Host]()
	for _, text := range []string{host.String(), "cl_", "cl_short", "cl_8zzzzzzzzzzzzzzzzzzzzzzzzz", "cl_0000000000000000000000000u"} {
		var cluster ids.Cluster
		if err := cluster.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was accepted as a cluster's id", text)
		}
	}
}

func TestScanReadsWhatValueWrites(t *testing.T) {
	t.Parallel()
	want := ids.New[ids.Node]()
	value, err := want.Value()
	if err != nil {
		t.Fatal(err)
	}
	var got ids.Node
	if err := got.Scan(value); err != nil || got != want {
		t.Fatalf("got %v, %v; want %v", got, err, want)
	}
	if value, err := (ids.Node{}).Value(); value != nil || err != nil {
		t.Fatalf("the zero id is stored as %v, %v", value, err)
	}
	if err := got.Scan(nil); err != nil || !got.IsZero() {
		t.Fatalf("NULL reads as %v, %v", got, err)
	}
}
