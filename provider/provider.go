package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

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
	// engineKey is the ID of the Docker engine that the resource lives on.
	engineKey = "__engine"
)

// provider is a layer around infer's provider. It adds to every request what infer does not do: states contain this
// provider's mark and their engine's ID, a resource of another engine is refused, inputs stay as the program gave
// them, and a preview calls neither infer nor the Docker engine. Pulumi starts one for each run.
type provider struct {
	inferred p.Provider
	// types, resources and config are the schema that infer derives from the structs. Check and diff follow it.
	types     map[tokens.Type]schema.ComplexTypeSpec
	resources map[tokens.Type]schema.ResourceSpec
	config    schema.ResourceSpec

	engine client.APIClient
	mu     sync.Mutex
	// engineID is the ID of the connected engine, as soon as it has been asked.
	engineID string
	// told are the causes that a message has already explained.
	told sync.Map
	// takenOver are the URNs by the engine ids that they took over.
	takenOver sync.Map
	// contexts are functions that return the hash of a build context, by the context.
	contexts sync.Map
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
		infer.Resource(containers), infer.Resource(images), infer.Resource(remoteImages),
		infer.Resource(networks), infer.Resource(volumes), infer.Resource(services), infer.Resource(serviceConfigs), infer.Resource(secrets),
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
	d.inferred = inferred
	served := inferred
	served.CheckConfig, served.DiffConfig = d.checkConfig, d.diffConfig
	served.Check, served.Diff, served.Create, served.Read, served.Update, served.Delete = d.check, d.diff, d.create, d.read, d.update, d.delete
	return cancel.Wrap(served), nil
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

func (d *provider) check(ctx context.Context, req p.CheckRequest) (p.CheckResponse, error) {
	if _, served := d.resources[req.Urn.Type()]; !served {
		return p.CheckResponse{}, fmt.Errorf("%s is not served by the offline docker provider: "+
			"use the official docker plugin for it (`platform init` chooses the provider)", req.Urn.Type())
	}
	if req.State.Len() > 0 && req.Inputs.Equals(req.State) { // the inputs of the last run, which were checked then
		return p.CheckResponse{Inputs: req.Inputs}, nil
	}
	resp, err := d.inferred.Check(d.with(ctx, req.Urn, req.Inputs), req)
	// The other inputs stay as they are, because infer writes every optional one that was not given.
	inputs := req.Inputs
	if hash, ok := resp.Inputs.GetOk(contextHashKey); ok {
		inputs = inputs.Set(contextHashKey, hash)
	}
	return p.CheckResponse{Inputs: inputs, Failures: resp.Failures}, err
}

func (d *provider) create(ctx context.Context, req p.CreateRequest) (p.CreateResponse, error) {
	if req.DryRun {
		return p.CreateResponse{Properties: d.state(req.Urn, req.Properties, d.unknown(req.Urn), "")}, nil
	}
	engineID, err := d.sameEngine(ctx, "")
	if err != nil {
		return p.CreateResponse{}, err
	}
	resp, err := d.inferred.Create(d.with(ctx, req.Urn, req.Properties), req)
	resp.Properties = d.state(req.Urn, req.Properties, resp.Properties, engineID)
	return resp, d.explain(req.Urn, req.Properties, err)
}

func (d *provider) read(ctx context.Context, req p.ReadRequest) (p.ReadResponse, error) {
	if req.Properties.Len() == 0 {
		return p.ReadResponse{}, errors.New("the offline docker provider cannot import resources. Fix: use the official docker plugin")
	}
	outputs, engineID, err := d.recorded(ctx, req.Urn, req.Properties, false)
	if err != nil {
		return p.ReadResponse{}, err
	}
	req.Properties = outputs
	resp, err := d.inferred.Read(d.with(ctx, req.Urn, req.Inputs), req)
	if err != nil || resp.ID == "" {
		return p.ReadResponse{}, d.explain(req.Urn, req.Inputs, err)
	}
	return p.ReadResponse{ID: resp.ID, Properties: d.state(req.Urn, req.Inputs, resp.Properties, engineID), Inputs: req.Inputs}, nil
}

func (d *provider) update(ctx context.Context, req p.UpdateRequest) (p.UpdateResponse, error) {
	outputs, engineID, err := d.recorded(ctx, req.Urn, req.State, req.DryRun)
	if err != nil {
		return p.UpdateResponse{}, err
	}
	if req.DryRun {
		if req.Urn.Type() == imageType { // a build creates a new image
			outputs = d.unknown(req.Urn)
		}
		return p.UpdateResponse{Properties: d.state(req.Urn, req.Inputs, outputs.Delete(failedKey, driftKey), engineID)}, nil
	}
	req.State = outputs
	resp, err := d.inferred.Update(d.with(ctx, req.Urn, req.Inputs), req)
	resp.Properties = d.state(req.Urn, req.Inputs, resp.Properties, engineID)
	return resp, d.explain(req.Urn, req.Inputs, err)
}

func (d *provider) delete(ctx context.Context, req p.DeleteRequest) error {
	outputs, _, err := d.recorded(ctx, req.Urn, req.Properties, false)
	if err != nil {
		return err
	}
	// A resource that was renamed in the program is created before the old one is
	// deleted, and adopts the same container.
	if urn, ok := d.takenOver.Load(req.ID); ok && urn != req.Urn {
		return nil
	}
	req.Properties = outputs
	return d.explain(req.Urn, req.OldInputs, d.inferred.Delete(d.with(ctx, req.Urn, req.OldInputs), req))
}

// ours refuses states that this provider did not write.
func ours(state property.Map) error {
	if state.Get(markerKey).IsNull() {
		return errors.New("this stack was created with the official docker plugin, and this is the offline one. " +
			"Fix: run it with the official one, or `pulumi destroy` it with the official plugin " +
			"(volumes and their data stay) and then `pulumi up` again")
	}
	return nil
}

// recorded returns the outputs and the engine's ID that a state contains. It refuses a resource that is on another
// engine. A preview does not ask the engine.
func (d *provider) recorded(
	ctx context.Context, urn resource.URN, state property.Map, dryRun bool,
) (outputs property.Map, engineID string, err error) {
	if err := ours(state); err != nil {
		return property.Map{}, "", err
	}
	if id := state.Get(engineKey); id.IsString() {
		engineID = id.AsString()
	}
	if !dryRun {
		engineID, err = d.sameEngine(ctx, engineID)
	}
	return d.outputs(urn, state), engineID, err
}

// sameEngine returns the ID of the connected engine, and refuses a resource that is recorded on another one.
func (d *provider) sameEngine(ctx context.Context, recorded string) (string, error) {
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

// outputs returns the properties of a resource that are not its inputs.
func (d *provider) outputs(urn resource.URN, from property.Map) property.Map {
	var outputs property.Map
	for name := range d.resources[urn.Type()].Properties {
		if value, ok := from.GetOk(name); ok {
			outputs = outputs.Set(name, value)
		}
	}
	return outputs
}

// unknown returns the outputs of a resource in a preview, which only the engine can provide.
func (d *provider) unknown(urn resource.URN) property.Map {
	var outputs property.Map
	for name := range d.resources[urn.Type()].Properties {
		outputs = outputs.Set(name, property.New(property.Computed))
	}
	return outputs.Delete(failedKey, driftKey)
}

// state returns what is written to the state file: inputs, outputs, this provider's mark and
// the engine's ID.
func (d *provider) state(urn resource.URN, inputs, outputs property.Map, engineID string) property.Map {
	state := inputs.Set(markerKey, property.New(Version))
	for name, value := range d.outputs(urn, outputs).All {
		state = state.Set(name, value)
	}
	if engineID != "" {
		state = state.Set(engineKey, property.New(engineID))
	}
	return state
}

// explain adds to an error what its text lacks: the name of the resource, and the engine's address if the connection
// was cut, for which the client says only "EOF".
func (d *provider) explain(urn resource.URN, inputs property.Map, err error) error {
	if err == nil || errors.As(err, new(*initError)) {
		return err
	}
	key := "name"
	if urn.Type() == imageType {
		key = "imageName"
	}
	if name := inputs.Get(key); name.IsString() {
		which := strings.ToLower(strings.TrimPrefix(urn.Type().Name().String(), "Remote")) + " " + name.AsString()
		if !strings.HasPrefix(err.Error(), which) {
			err = fmt.Errorf("%s: %w", which, err)
		}
	}
	if fix := swarmFix(err.Error()); fix != "" && !strings.Contains(err.Error(), "Fix: ") {
		err = fmt.Errorf("%w%s", err, fix)
	}
	if strings.Contains(err.Error(), "EOF") && !strings.Contains(err.Error(), d.engine.DaemonHost()) {
		return fmt.Errorf("the connection to the Docker engine at %s was cut: %w. "+
			"Fix: make sure that `docker info` works, then run the same command again", d.engine.DaemonHost(), err)
	}
	return err
}
