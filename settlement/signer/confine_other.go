//go:build !linux

package signer

import "fmt"

// Confine fails: only Linux has Landlock.
func Confine(Options, ...string) error {
	return fmt.Errorf("%w: this system is not Linux", ErrNotConfined)
}
