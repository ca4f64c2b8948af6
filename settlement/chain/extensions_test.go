package chain

import (
	"slices"
	"testing"
)

func TestExtensionsOfAMint(t *testing.T) {
	t.Parallel()
	base := make([]byte, extensionsAt)
	for name, c := range map[string]struct {
		tail []byte
		want []Extension
	}{
		"none":          {nil, nil},
		"padding":       {[]byte{0, 0, 0, 0, 0, 0}, nil},
		"two":           {[]byte{18, 0, 2, 0, 9, 9, 1, 0, 1, 0, 7}, []Extension{ExtensionMetadataPointer, 1}},
		"one cut short": {[]byte{12, 0, 32, 0, 1}, []Extension{12}},
		"half a head":   {[]byte{12, 0, 32}, nil},
	} {
		if got := extensionsOf(append(slices.Clone(base), c.tail...)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if got := extensionsOf(base[:mintSize]); got != nil {
		t.Errorf("a plain mint has %v", got)
	}
}
