package statements

import (
	"github.com/google/uuid"

	"github.com/muster-gpu/muster/internal/ids"
)

// uuidText is the form in which arrays of ids reach Postgres.
func uuidText[K ids.Kind](id ids.ID[K]) string { return uuid.UUID(id).String() }
