package proof

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/muster-gpu/muster/internal/ids"
)

// Inclusion proves that a payout is in the manifest with a root, without the other payouts.
type Inclusion struct {
	Leaf  string   `json:"leaf"`  // the payout's canonical JSON
	Index int      `json:"index"` // the leaf's place; 0 is the manifest's head
	Size  int      `json:"size"`  // how many leaves there are
	Path  []string `json:"path"`  // the neighbours' hashes from the leaf up, base64url
	Root  string   `json:"root"`
}

// Include makes the proof of one payout of a manifest.
func (m *Manifest) Include(payout int) (Inclusion, error) {
	leaves, err := m.Leaves()
	if err != nil {
		return Inclusion{}, err
	}
	index := payout + 1
	if payout < 0 || index >= len(leaves) {
		return Inclusion{}, fmt.Errorf("the manifest has no payout %d", payout)
	}
	hashes, root, err := grow(leaves)
	if err != nil {
		return Inclusion{}, err
	}
	nodes, err := proof.Inclusion(uint64(index), uint64(len(leaves)))
	if err != nil {
		return Inclusion{}, fmt.Errorf("prove inclusion: %w", err)
	}
	path := make([][]byte, len(nodes.IDs))
	for i, id := range nodes.IDs {
		path[i] = hashes[id]
	}
	if path, err = nodes.Rehash(path, rfc6962.DefaultHasher.HashChildren); err != nil {
		return Inclusion{}, fmt.Errorf("prove inclusion: %w", err)
	}
	included := Inclusion{Leaf: string(leaves[index]), Index: index, Size: len(leaves), Path: make([]string, len(path)), Root: root.String()}
	for i, hash := range path {
		included.Path[i] = base64.RawURLEncoding.EncodeToString(hash)
	}
	return included, nil
}

var errNotIncluded = errors.New("the path does not lead from the leaf to the root")

// Verify checks that the leaf is in the tree of the root.
func (i Inclusion) Verify() error {
	root, err := ParseRoot(i.Root)
	if err != nil {
		return err
	}
	if i.Index < 0 || i.Size < 0 {
		return errNotIncluded
	}
	path := make([][]byte, len(i.Path))
	for n, text := range i.Path {
		if path[n], err = base64.RawURLEncoding.DecodeString(text); err != nil {
			return errNotIncluded
		}
	}
	hasher := rfc6962.DefaultHasher
	if proof.VerifyInclusion(hasher, uint64(i.Index), uint64(i.Size), hasher.HashLeaf([]byte(i.Leaf)), path, root[:]) != nil {
		return errNotIncluded
	}
	return nil
}

func rootOf(leaves [][]byte) (Root, error) {
	_, root, err := grow(leaves)
	return root, err
}

// grow hashes all leaves to the root, and returns the hash of every complete subtree.
func grow(leaves [][]byte) (map[compact.NodeID][]byte, Root, error) {
	hasher := rfc6962.DefaultHasher
	hashes := make(map[compact.NodeID][]byte, 2*len(leaves))
	keep := func(id compact.NodeID, hash []byte) { hashes[id] = hash }
	factory := compact.RangeFactory{Hash: hasher.HashChildren}
	tree := factory.NewEmptyRange(0)
	for _, leaf := range leaves {
		if err := tree.Append(hasher.HashLeaf(leaf), keep); err != nil {
			return nil, Root{}, fmt.Errorf("hash manifest: %w", err)
		}
	}
	root, err := tree.GetRootHash(nil)
	if err != nil {
		return nil, Root{}, fmt.Errorf("hash manifest: %w", err)
	}
	return hashes, Root(root), nil
}

// CheckLeaf checks that the leaf is this payout, that it is in the tree of the root, and that the memo has this root.
func CheckLeaf(i Inclusion, payout ids.Payout, memo string) error {
	var leaf Payout
	if err := json.Unmarshal([]byte(i.Leaf), &leaf); err != nil || leaf.ID != payout {
		return errors.New("the leaf is another payout's")
	}
	if _, root, err := ParseMemo(memo); err != nil || root.String() != i.Root {
		return errors.New("the memo has another root")
	}
	if err := CheckSum(&leaf); err != nil {
		return err
	}
	return i.Verify()
}
