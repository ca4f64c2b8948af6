package soljournal

import "time"

// WithPieces makes a service read long histories in small pieces, and so many of them in each look.
func (s *Service) WithPieces(size, most int) *Service {
	s.pieceSize, s.maxPieces = size, most
	return s
}

// WithPatience makes a service read no longer than that.
func (s *Service) WithPatience(patience time.Duration) *Service {
	s.patience = patience
	return s
}
