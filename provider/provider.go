package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	p "github.com/pulumi/pulumi-go-provider"
	"github.com/pulumi/pulumi-go-provider/infer"
	"github.com/pulumi/pulumi-go-provider/middleware/cancel"
	"github.com/pulumi/pulumi/pkg/v3/codegen/schema"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/pulumi/pulumi/sdk/v3/go/property"
)

// Version is this plugin's version, the default being the official plugin's whose
// resource types it serves. The build sets it with
// -ldflags "-X trading-platform/provider.Version=…".
var Version = "4.11.2"

const (
	// markerKey is in the outputs of every state that this provider wrote, so that
	// neither provider works on states of the other.
	markerKey = "__offlineDocker"
	// engineKey is the ID of the Docker engine that the resource lives on. States of
	// older versions do not have it.
	engineKey = "__engine"
)

// errForeignState is the answer to a state that the official plugin wrote.
var errForeignState = errors.New("this stack was created with the official docker plugin, and this is the offline one. " +
	"Fix: run it with the official one, or `pulumi destroy` it with the official plugin " +
	"(volumes and their data stay) and then `pulumi up` again")

// provider holds what all requests share. Pulumi starts one for each run.
type provider struct {
	types     map[tokens.Type]schema.ComplexTypeSpec
	resources map[tokens.Type]schema.ResourceSpec
	config    schema.ResourceSpec
	engine    client.APIClient
	// told are the causes that a message has already explained.
	told sync.Map
	// takenOver are the URNs by the engine ids that they took over.
	takenOver sync.Map

	mu       sync.Mutex
	engineID string
}

// Serve serves the provider to the Pulumi engine that started this process.
func Serve(ctx context.Context) error {
	served, err := newProvider(nil)
	if err != nil {
		return err
	}
	return served.Run(ctx, "docker", Version)
}

// newProvider returns a provider for the engine; nil stands for the one that the provider's
// configuration names.
func newProvider(e client.APIClient) (p.Provider, error) {
	d := &provider{engine: e, types: map[tokens.Type]schema.ComplexTypeSpec{}, resources: map[tokens.Type]schema.ResourceSpec{}}
	config := infer.Config(&EngineConfig{provider: d})
	resources := []infer.InferredResource{
		infer.Resource(&Container{}), infer.Resource(&Image{}), infer.Resource(&RemoteImage{}),
		infer.Resource(&Network{}), infer.Resource(&Volume{}),
	}
	if err := d.learn(config, resources); err != nil {
		return p.Provider{}, fmt.Errorf("schema: %w", err)
	}
	inferred, err := infer.NewProviderBuilder().
		WithDescription("The offline docker provider: the part of the official one that this program uses.").
		WithResources(resources...).WithConfig(config).Build()
	if err != nil {
		return p.Provider{}, err
	}
	return cancel.Wrap(d.wrap(inferred)), nil
}

// learn keeps what infer derives from the structs, for check and diff.
func (d *provider) learn(config infer.InferredConfig, resources []infer.InferredResource) error {
	register := func(token tokens.Type, spec schema.ComplexTypeSpec) bool {
		_, known := d.types[token]
		d.types[token] = spec
		return !known
	}
	var err error
	if d.config, err = config.GetSchema(register); err != nil {
		return err
	}
	for _, resource := range resources {
		token, err := resource.GetToken()
		if err != nil {
			return err
		}
		// Infer does not set the package's name.
		token = "docker:" + token[strings.Index(string(token), ":")+1:]
		if d.resources[token], err = resource.GetSchema(register); err != nil {
			return err
		}
	}
	return nil
}

// wrap adds to every request what infer does not do: states contain this provider's
// mark and their engine's ID, a resource of another engine is refused, inputs stay as the
// program gave them, and infer is not called in a preview.
func (d *provider) wrap(inferred p.Provider) p.Provider {
	outer := inferred
	outer.CheckConfig, outer.DiffConfig, outer.Diff = d.checkConfig, d.diffConfig, d.diff
	outer.Check = func(ctx context.Context, req p.CheckRequest) (p.CheckResponse, error) {
		if err := d.serves(req.Urn); err != nil {
			return p.CheckResponse{}, err
		}
		if req.State.Len() > 0 && req.Inputs.Equals(req.State) { // the inputs of the last run, which were checked then
			return p.CheckResponse{Inputs: req.Inputs}, nil
		}
		resp, err := inferred.Check(d.with(ctx, req.Urn, req.Inputs), req)
		resp.Inputs = d.merge(req.Urn, req.Inputs, resp.Inputs, contextHashKey)
		return resp, err
	}
	outer.Create = func(ctx context.Context, req p.CreateRequest) (p.CreateResponse, error) {
		engineID, err := d.begin(ctx, req.Urn, property.Map{}, req.DryRun)
		if err != nil {
			return p.CreateResponse{}, err
		}
		if req.DryRun {
			return p.CreateResponse{Properties: d.state(req.Urn, req.Properties, d.unknown(req.Urn), "")}, nil
		}
		resp, err := inferred.Create(d.with(ctx, req.Urn, req.Properties), req)
		resp.Properties = d.state(req.Urn, req.Properties, resp.Properties, engineID)
		return resp, d.cutOff(err)
	}
	outer.Read = func(ctx context.Context, req p.ReadRequest) (p.ReadResponse, error) {
		if req.Properties.Len() == 0 {
			return p.ReadResponse{}, errors.New("the offline docker provider cannot import resources. Fix: use the official docker plugin")
		}
		engineID, err := d.beginRecorded(ctx, req.Urn, &req.Properties, false)
		if err != nil {
			return p.ReadResponse{}, err
		}
		resp, err := inferred.Read(d.with(ctx, req.Urn, req.Inputs), req)
		if err != nil || resp.ID == "" {
			return p.ReadResponse{}, err
		}
		resp.Properties = d.state(req.Urn, req.Inputs, resp.Properties, engineID)
		resp.Inputs = req.Inputs
		return resp, nil
	}
	outer.Update = func(ctx context.Context, req p.UpdateRequest) (p.UpdateResponse, error) {
		engineID, err := d.beginRecorded(ctx, req.Urn, &req.State, req.DryRun)
		if err != nil {
			return p.UpdateResponse{}, err
		}
		if req.DryRun {
			outputs := req.State
			if req.Urn.Type() == imageType { // a build creates a new image
				outputs = d.unknown(req.Urn)
			}
			return p.UpdateResponse{Properties: d.state(req.Urn, req.Inputs, outputs.Delete(failedKey, driftKey), engineID)}, nil
		}
		resp, err := inferred.Update(d.with(ctx, req.Urn, req.Inputs), req)
		resp.Properties = d.state(req.Urn, req.Inputs, resp.Properties, engineID)
		return resp, d.cutOff(err)
	}
	outer.Delete = func(ctx context.Context, req p.DeleteRequest) error {
		if _, err := d.beginRecorded(ctx, req.Urn, &req.Properties, false); err != nil {
			return err
		}
		// A resource that was renamed in the program is created before the old one is
		// deleted, and adopts the same container.
		if urn, ok := d.takenOver.Load(req.ID); ok && urn != req.Urn {
			return nil
		}
		return d.cutOff(inferred.Delete(d.with(ctx, req.Urn, req.OldInputs), req))
	}
	return outer
}

func (d *provider) serves(urn resource.URN) error {
	if _, ok := d.resources[urn.Type()]; ok {
		return nil
	}
	return fmt.Errorf("%s is not served by the offline docker provider: "+
		"use the official docker plugin for it (`platform init` chooses the provider)", urn.Type())
}

// ours refuses states that this provider did not write.
func ours(state property.Map) error {
	if state.Get(markerKey).IsNull() {
		return errForeignState
	}
	return nil
}

// beginRecorded begins a request for a resource that exists, and removes from its state what
// infer does not know: the marks, and properties that another version of this provider added.
func (d *provider) beginRecorded(ctx context.Context, urn resource.URN, state *property.Map, dryRun bool) (string, error) {
	if err := ours(*state); err != nil {
		return "", err
	}
	engineID, err := d.begin(ctx, urn, *state, dryRun)
	for name := range state.All {
		if _, known := d.resources[urn.Type()].Properties[name]; !known {
			*state = state.Delete(name)
		}
	}
	return engineID, err
}

// begin returns the ID of the connected engine, and refuses a resource that is
// on another one. A preview does not ask the engine and gets the recorded ID.
func (d *provider) begin(ctx context.Context, urn resource.URN, state property.Map, dryRun bool) (string, error) {
	recorded := ""
	if v := state.Get(engineKey); v.IsString() {
		recorded = v.AsString()
	}
	if err := d.serves(urn); err != nil || dryRun {
		return recorded, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.engineID == "" {
		found, err := d.engine.Info(ctx, client.InfoOptions{})
		if err != nil {
			return "", fmt.Errorf("docker engine %s: %w", d.engine.DaemonHost(), err)
		}
		d.engineID = found.Info.ID
	}
	switch {
	case recorded == "" || recorded == d.engineID:
		return d.engineID, nil
	case !d.first(engineKey):
		return "", errors.New("it is on the other Docker engine too, and was not touched")
	}
	return "", fmt.Errorf("this stack lives on the Docker engine %s, and the connected one (%s) is %s; nothing was touched\n"+
		"Fix: name the right engine with `DOCKER_HOST` or `docker context use`. To move the stack on purpose, run `platform down` "+
		"on the old engine, remove `engine` from the stack's settings, and run `platform up`",
		recorded, d.engine.DaemonHost(), d.engineID)
}

// first reports whether this is the first message about the cause. A cause that affects many
// resources is explained in full only once.
func (d *provider) first(cause string) bool {
	_, told := d.told.LoadOrStore(cause, true)
	return !told
}

// unknown returns the outputs of a resource in a preview, which only the engine can provide.
func (d *provider) unknown(urn resource.URN) property.Map {
	outputs := map[string]property.Value{}
	for name := range d.resources[urn.Type()].Properties {
		outputs[name] = property.New(property.Computed)
	}
	return property.NewMap(outputs).Delete(failedKey, driftKey)
}

// state returns what is written to the state file: inputs, outputs, this provider's mark and
// the engine's ID.
func (d *provider) state(urn resource.URN, inputs, outputs property.Map, engineID string) property.Map {
	// The engine chooses a driver that was not given.
	state := d.merge(urn, inputs, outputs, "driver").Set(markerKey, property.New(Version))
	if engineID != "" {
		state = state.Set(engineKey, property.New(engineID))
	}
	return state
}

// merge returns the inputs as they were given, with what infer's answer adds to them: the
// outputs, and the named input. The rest of the answer is left out, because infer writes
// every optional input that was not given.
func (d *provider) merge(urn resource.URN, inputs, answer property.Map, added string) property.Map {
	known := d.resources[urn.Type()].InputProperties
	for name, value := range answer.All {
		_, isInput := known[name]
		if _, given := inputs.GetOk(name); !given && (!isInput || name == added) {
			inputs = inputs.Set(name, value)
		}
	}
	return inputs
}

// cutOff adds the engine's address to the error of a connection that was cut, for which the client
// says only "EOF".
func (d *provider) cutOff(err error) error {
	if err == nil || errors.As(err, new(*initError)) || !strings.Contains(err.Error(), "EOF") || strings.Contains(err.Error(), d.engine.DaemonHost()) {
		return err
	}
	return fmt.Errorf("the connection to the Docker engine at %s was cut: %w. Fix: make sure that `docker info` works, then run the same command again", d.engine.DaemonHost(), err)
}

// call is one request for one resource.
type call struct {
	*provider
	urn    resource.URN
	inputs property.Map
	log    p.Logger
}

type callKey struct{}

// with passes the request on to the resource's methods.
func (d *provider) with(ctx context.Context, urn resource.URN, inputs property.Map) context.Context {
	// Messages are sent even if the run is cancelled.
	return context.WithValue(ctx, callKey{}, call{d, urn, inputs, p.GetLogger(context.WithoutCancel(ctx))})
}

func callOf(ctx context.Context) call { return ctx.Value(callKey{}).(call) }

// status replaces the line that the display shows for the resource while it works on it.
func (c call) status(format string, a ...any) { c.log.InfoStatusf(format, a...) }

// warn stays in the display's diagnostics.
func (c call) warn(format string, a ...any) { c.log.Warningf(format, a...) }

// unlessGone returns the error of a failed read. It is nil for a resource that no longer exists, because infer
// treats an answer without an ID as its deletion.
func unlessGone(err error, kind, name string) error {
	if cerrdefs.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("%s %s: %w", kind, name, err)
}

// initError says that the resource exists but failed to start.
type initError struct {
	reason string
	// summary is recorded in the state; unlike reason it contains nothing that a container printed.
	summary string
	// resumable failures, such as a cancelled wait, are continued and cause no replacement.
	resumable bool
}

func (e *initError) Error() string { return e.reason }

// Unwrap makes infer record the resource.
func (e *initError) Unwrap() error { return infer.ResourceInitFailedError{Reasons: []string{e.reason}} }
