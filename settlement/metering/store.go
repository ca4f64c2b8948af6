package metering

import (
	"github.com/google/uuid"

	"github.com/muster-gpu/muster/internal/ids"
)

// pgUUID is an id as uuid text, the zero id included: as a cursor it comes before every other.
func pgUUID[K ids.Kind](id ids.ID[K]) string { return uuid.UUID(id).String() }

// pgUUIDs is the form in which arrays of ids reach Postgres.
func pgUUIDs[K ids.Kind](list []ids.ID[K]) []string {
	texts := make([]string, len(list))
	for i, id := range list {
		texts[i] = pgUUID(id)
	}
	return texts
}
