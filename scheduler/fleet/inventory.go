package fleet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"

	googleuuid "github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/scheduler/fleet/fleetdb"
)

const (
	maxGPUs       = 64 // of one host
	maxModelName  = 40
	maxProduct    = 120
	maxGPUUUID    = 80
	maxHealthNote = 300
	maxImages     = 32
	maxRuntime    = 40
	bytesPerMiB   = 1 << 20

	noteMissing = "the host no longer reports this GPU"
	noteMIG     = "MIG is on, and only whole GPUs are leased: switch it off with nvidia-smi -mig 0"
)

// markConnected notes a stream's beginning. A host that was lost is verified again; one that was not goes on as it was, however long
// no control plane was there to hear it.
func (g *Gateway) markConnected(ctx context.Context, s *session, hello *agentpb.Hello) error {
	select {
	case g.hellos <- struct{}{}:
		defer func() { <-g.hellos }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	return pgx.BeginFunc(ctx, g.options.Pool, func(tx pgx.Tx) error {
		row, err := g.queries.LockHost(ctx, tx, s.host)
		if err != nil {
			return err
		}
		if err = standingError(row.State, row.StateReason); err != nil {
			return err
		}
		s.quarantined.Store(row.State == StateQuarantined)
		g.setBusy(s, row.Busy)
		s.interval.Store(int64(g.interval(row.Busy)))
		s.lostAfter.Store(int32(g.lostAfter(g.interval(row.Busy)).Milliseconds()))
		if row.State == StateEnrolled || row.State == StateLost {
			if err = g.queries.SetHostState(ctx, tx, StateVerifying, keptReason(row.StateReason), s.host); err != nil {
				return err
			}
		}
		s.stream, err = g.queries.MarkConnected(ctx, tx, s.lostAfter.Load(), clip(hello.GetAgentVersion(), maxVersionLength), hello.GetProtocolVersion(), s.host)
		return err
	})
}

// keptReason carries an owner's cordon through verification, and nothing else.
func keptReason(reason string) string {
	if reason == reasonCordonedLost {
		return reason
	}
	return ""
}

// receiveInventory stores an inventory that differs from the last and moves the host on. It returns an error, which ends the
// stream, if the host is quarantined for it.
func (g *Gateway) receiveInventory(ctx context.Context, s *session, inventory *agentpb.Inventory) error {
	document, hash, err := canonical(inventory)
	if err != nil {
		return err
	}
	if len(inventory.GetGpus()) > maxGPUs {
		return errs.New(errs.Invalid, "a host has at most %d GPUs", maxGPUs)
	}
	var refused *errs.Error
	err = pgx.BeginFunc(ctx, g.options.Pool, func(tx pgx.Tx) error {
		host, err := g.queries.LockHost(ctx, tx, s.host)
		if err != nil {
			return err
		}
		if err = standingError(host.State, host.StateReason); err != nil {
			return err
		}
		refused, err = g.storeInventory(ctx, tx, s, host, inventory, document, hash)
		return err
	})
	if err == nil && refused != nil {
		if err = g.enrolment.quarantine(ctx, s.host, refused.Message); err == nil {
			err = refused
		}
	}
	if err == nil {
		err = g.assess(ctx, s)
	}
	if errs.CodeOf(err) == errs.Internal {
		// The agent says it all again on its next stream.
		g.log.WarnContext(ctx, "inventory not stored", "host_id", s.host, "error", err)
	}
	return err
}

// storeInventory returns why the host must be quarantined, if so; then nothing is stored.
func (g *Gateway) storeInventory(ctx context.Context, tx pgx.Tx, s *session, host fleetdb.LockHostRow, inventory *agentpb.Inventory, document, hash []byte) (*errs.Error, error) {
	if inventory.GetSimulated() && !g.options.AllowSimulated {
		return errs.New(errs.Forbidden, "the host's GPUs are simulated, which this control plane does not accept"), nil
	}
	stored, err := g.queries.InventoryHash(ctx, tx, s.host)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, err
	}
	if !bytes.Equal(stored, hash) || s.machineID != host.MachineID || inventory.GetSimulated() != host.Simulated {
		refused, err := g.storeGPUs(ctx, tx, s, host, inventory)
		if err != nil || refused != nil {
			return refused, err
		}
		if err = g.queries.UpsertInventory(ctx, tx, s.host, document, hash); err != nil {
			return nil, err
		}
	}
	measured, err := g.queries.SetMeasured(ctx, tx, measuredParams(s, inventory))
	if err != nil {
		return nil, err
	}
	s.health.facts, s.health.problem, s.health.inventoried = factsOf(host.Kind, inventory), inventoryProblem(host.Kind, inventory), true
	if s.health.problem != "" {
		measured++
		if err = g.settle(ctx, tx, host, s.health.problem); err != nil {
			return nil, err
		}
	}
	if measured == 0 && bytes.Equal(stored, hash) {
		return nil, nil // neither refused nor failed, and nothing to look at
	}
	return nil, g.queries.WakeScheduler(ctx, tx)
}

// measuredParams is what placement asks of a host. It is written although the inventory is the same as before: it may never have been.
func measuredParams(s *session, inventory *agentpb.Inventory) fleetdb.SetMeasuredParams {
	images := make([]string, 0, len(inventory.GetRayVersions()))
	for _, version := range inventory.GetRayVersions()[:min(len(inventory.GetRayVersions()), maxImages)] {
		images = append(images, clip(version, maxVersionLength))
	}
	slices.Sort(images)
	return fleetdb.SetMeasuredParams{
		Simulated: inventory.GetSimulated(), MachineID: s.machineID, Runtime: clip(inventory.GetRuntime(), maxRuntime),
		CPUs: max(0, inventory.GetCpus()), MemoryBytes: max(0, inventory.GetMemoryBytes()),
		DiskFreeBytes: diskSteps(inventory.GetDiskFreeBytes()), DriverMajor: driverMajor(inventory.GetDriverVersion()),
		Images: slices.Compact(images), ID: s.host,
	}
}

// settle moves a host on according to what is known of it: to idle once it is sane, back to verifying when it no longer is.
func (g *Gateway) settle(ctx context.Context, tx pgx.Tx, host fleetdb.LockHostRow, problem string) error {
	switch {
	case host.State == StateVerifying && problem != "":
		if host.StateReason == reasonCordonedLost {
			return nil
		}
		return g.queries.SetHostState(ctx, tx, StateVerifying, clip(problem, maxHealthNote), host.ID)
	case host.State == StateIdle && problem != "":
		return g.queries.SetHostState(ctx, tx, StateVerifying, clip(problem, maxHealthNote), host.ID)
	case host.State == StateVerifying:
		return g.release(ctx, tx, host)
	default:
		return nil
	}
}

// release makes a verified host available: idle, and from there leased if it still runs nodes, or draining if it was cordoned.
func (g *Gateway) release(ctx context.Context, tx pgx.Tx, host fleetdb.LockHostRow) error {
	if err := g.queries.SetHostState(ctx, tx, StateIdle, "", host.ID); err != nil {
		return err
	}
	if host.StateReason == reasonCordonedLost {
		return g.queries.SetHostState(ctx, tx, StateDraining, reasonCordoned, host.ID)
	}
	inMaintenance, err := g.queries.InMaintenance(ctx, tx, host.ID)
	if err != nil {
		return err
	}
	if inMaintenance {
		return g.queries.SetHostState(ctx, tx, StateDraining, reasonMaintenance, host.ID)
	}
	return leaseIfBusy(ctx, g.queries, tx, host.ID)
}

// leaseIfBusy makes an idle host that runs nodes leased.
func leaseIfBusy(ctx context.Context, queries *fleetdb.Queries, tx pgx.Tx, host ids.Host) error {
	busy, err := queries.HasOpenWork(ctx, tx, host)
	if err != nil || !busy {
		return err
	}
	return queries.SetHostState(ctx, tx, StateLeased, "", host)
}

// inventoryProblem says why a host cannot take work, or "".
func inventoryProblem(kind string, inventory *agentpb.Inventory) string {
	switch {
	case inventory.GetCpus() <= 0 || inventory.GetMemoryBytes() <= 0:
		return "the host does not say how many CPUs and how much memory it has"
	case len(inventory.GetRayVersions()) == 0:
		return "the host has no Ray that muster-worker can start: give it one with --ray-venv"
	case kind == KindHead:
		return ""
	case inventory.GetProbeError() != "":
		return "the GPUs could not be read: " + inventory.GetProbeError()
	case len(inventory.GetGpus()) == 0:
		return "no GPU was found"
	default:
		return ""
	}
}

// canonical is the form of an inventory that is stored and compared: without the figures that change all the time.
func canonical(inventory *agentpb.Inventory) (document, hash []byte, err error) {
	steady, _ := proto.Clone(inventory).(*agentpb.Inventory)
	steady.DiskFreeBytes = 0
	for _, gpu := range steady.GetGpus() {
		gpu.TemperatureCelsius, gpu.PowerMilliwatts, gpu.UtilizationPercent, gpu.MemoryUsedBytes = nil, nil, nil, nil
		gpu.PcieGeneration, gpu.PcieWidth = nil, nil // links slow down when idle
	}
	binary, err := proto.MarshalOptions{Deterministic: true}.Marshal(steady)
	if err != nil {
		return nil, nil, errs.New(errs.Invalid, "the inventory cannot be read")
	}
	document, err = protojson.MarshalOptions{UseProtoNames: true}.Marshal(inventory)
	if err != nil {
		return nil, nil, errs.New(errs.Invalid, "the inventory cannot be read")
	}
	document = bytes.ReplaceAll(document, []byte(`\u0000`), nil) // jsonb has no zero character
	sum := sha256.Sum256(binary)
	return document, sum[:], nil
}

// storeGPUs brings the rows of a host's GPUs in line with its inventory.
func (g *Gateway) storeGPUs(ctx context.Context, tx pgx.Tx, s *session, host fleetdb.LockHostRow, inventory *agentpb.Inventory) (*errs.Error, error) {
	if host.Kind == KindHead {
		return nil, nil // neither refused nor failed: a head host's GPUs are not leased
	}
	uuids := make([]string, 0, len(inventory.GetGpus()))
	for _, gpu := range inventory.GetGpus() {
		uuids = append(uuids, clip(gpu.GetUuid(), maxGPUUUID))
	}
	rows, err := g.queries.LockGPUs(ctx, tx, s.host, uuids)
	if err != nil {
		return nil, err
	}
	plan, refused := planGPUs(host, s.machineID, inventory.GetGpus(), rows)
	if refused != nil {
		return refused, nil
	}
	written, err := g.queries.UpsertGPUs(ctx, tx, plan.present)
	if err != nil {
		return nil, err
	}
	for _, uuid := range plan.present.Uuids {
		if !slices.Contains(written, uuid) {
			return nil, errs.New(errs.Unavailable, "GPU %s has just been enrolled by another host", uuid)
		}
	}
	for _, gpu := range plan.missing {
		if err = g.queries.SetGPUMissing(ctx, tx, noteMissing, gpu.ordinal, gpu.id); err != nil {
			return nil, err
		}
	}
	return nil, nil // neither refused nor failed
}

type gpuPlan struct {
	present fleetdb.UpsertGPUsParams
	missing []missingGPU
}

type missingGPU struct {
	id      ids.GPU
	ordinal int32
}

// planGPUs decides what becomes of each GPU, or why the host cannot be trusted.
func planGPUs(host fleetdb.LockHostRow, machineID string, gpus []*agentpb.GPU, rows []fleetdb.LockGPUsRow) (gpuPlan, *errs.Error) {
	known := make(map[string]fleetdb.LockGPUsRow, len(rows))
	for _, row := range rows {
		known[row.UUID] = row
	}
	plan := gpuPlan{present: fleetdb.UpsertGPUsParams{HostID: host.ID}}
	seen, taken, kept := map[string]bool{}, map[int32]bool{}, 0
	for _, gpu := range gpus {
		uuid := clip(gpu.GetUuid(), maxGPUUUID)
		row, exists := known[uuid]
		if uuid == "" || seen[uuid] || gpu.GetOrdinal() < 0 || taken[gpu.GetOrdinal()] {
			return plan, errs.New(errs.Forbidden, "the host reports the same GPU twice, or one without a UUID")
		}
		if exists && row.HostID != host.ID && !mayMove(row) {
			return plan, errs.New(errs.Forbidden, "GPU %s is enrolled under another host: retire that host first, then let an operator readmit this one", uuid)
		}
		seen[uuid] = true
		if exists && row.HostID == host.ID {
			kept++
		}
		if plan.add(uuid, gpu, row) {
			taken[gpu.GetOrdinal()] = true
		}
	}
	plan.missing = missingGPUs(host.ID, rows, seen, taken)
	if kept == 0 && len(plan.missing) > 0 && len(gpus) > 0 && machineID != host.MachineID {
		return plan, errs.New(errs.Forbidden, "the machine's id and all of its GPUs have changed: enrol another machine as a new host")
	}
	return plan, nil
}

// mayMove reports whether a GPU may come to another host: only from a retired one that was in good standing.
func mayMove(row fleetdb.LockGPUsRow) bool {
	return row.HostState == StateRetired && !strings.HasPrefix(row.HostStateReason, quarantinedPrefix)
}

// add plans a GPU's row; false if too little is known of a GPU that was never seen.
func (p *gpuPlan) add(uuid string, gpu *agentpb.GPU, row fleetdb.LockGPUsRow) bool {
	id, product, memory := row.ID, clip(gpu.GetProduct(), maxProduct), gpu.GetMemoryBytes()/bytesPerMiB
	if id.IsZero() {
		id = ids.New[ids.GPU]()
	}
	if product == "" || memory <= 0 { // a GPU that fell off the bus keeps what is known of it
		product, memory = row.Product, row.MemoryMiB
	}
	if product == "" || memory <= 0 {
		return false
	}
	note, to := healthNote(gpu), &p.present
	to.Ids, to.Uuids, to.Ordinals = append(to.Ids, googleuuid.UUID(id)), append(to.Uuids, uuid), append(to.Ordinals, gpu.GetOrdinal())
	to.Models, to.Products = append(to.Models, ModelName(product, memory*bytesPerMiB)), append(to.Products, product)
	to.MemoryMiB = append(to.MemoryMiB, memory)
	to.ComputeCapabilities = append(to.ComputeCapabilities, clip(gpu.GetComputeCapability(), maxVersionLength))
	to.Healthy, to.HealthNotes = append(to.Healthy, note == ""), append(to.HealthNotes, note)
	return true
}

func healthNote(gpu *agentpb.GPU) string {
	switch {
	case gpu.GetFault() != "":
		return clip(gpu.GetFault(), maxHealthNote)
	case gpu.GetMemoryBytes() <= 0 || gpu.GetProduct() == "":
		return "the GPU does not say its name or memory"
	case gpu.GetMigEnabled():
		return noteMIG
	default:
		return ""
	}
}

// missingGPUs are the host's GPUs that it no longer reports. They give way where another GPU has come to their place.
func missingGPUs(host ids.Host, rows []fleetdb.LockGPUsRow, seen map[string]bool, taken map[int32]bool) []missingGPU {
	var missing []missingGPU
	for _, row := range rows {
		if row.HostID != host || seen[row.UUID] {
			continue
		}
		ordinal := row.Ordinal
		for taken[ordinal] {
			ordinal++
		}
		taken[ordinal] = true
		missing = append(missing, missingGPU{id: row.ID, ordinal: ordinal})
	}
	return missing
}
