package provider

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"

	"github.com/blang/semver"
	"github.com/moby/moby/client"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil/rpcerror"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/grpc/codes"

	engines "trading-platform/engine"
)

// Version is this plugin's version, the default being the official plugin's whose
// resource types it serves. The build sets it with
// -ldflags "-X trading-platform/provider.Version=…".
var Version = "4.11.2"

const (
	// markerKey stands in the outputs of every state that this provider wrote, so
	// that no provider works on the other's states.
	markerKey = "__offlineDocker"
	// failedKey says why a resource was created and then did not come up. Such a
	// resource is replaced by the next up.
	failedKey = "failed"
	// driftKey names what a read found to differ, with a few words on each.
	driftKey = "drift"
	// engineKey is the ID of the Docker engine that the resource lives on. States of
	// older versions do not have it.
	engineKey = "__engine"
)

// errForeignState is the answer to a state that the official plugin wrote.
var errForeignState = errors.New("this stack was made with the official docker plugin, and this is the offline one: " +
	"run it with the official one, or `pulumi destroy` it with the official plugin " +
	"(volumes and their data stay) and then `pulumi up` again")

// call is one request for one resource.
type call struct {
	id resource.ID
	// inputs are as given now; in a read and a delete, as recorded.
	inputs resource.PropertyMap
	// recorded are the outputs of the last create, update or read.
	recorded resource.PropertyMap
	progress progress
	engine   engine
	// engineID is the connected engine's own ID; in a preview, which asks no engine, the recorded one.
	engineID string
	run      *run
}

// run is what a provider remembers between its calls; Pulumi starts one for each run.
type run struct {
	// told are the causes that a message has explained.
	told sync.Map
	// takenOver are the URNs by the engine ids that they took over.
	takenOver sync.Map
}

// first tells whether this is the first message about the cause. What stops many
// resources is explained in full once.
func (r *run) first(cause string) bool {
	_, told := r.told.LoadOrStore(cause, true)
	return !told
}

// recordedText is a recorded output that is a text, or "" where there is none.
func (c call) recordedText(key resource.PropertyKey) string {
	text, _ := plain(c.recorded[key]).(string)
	return text
}

// outputs are what a resource knows beyond its inputs.
type outputs = resource.PropertyMap

// resourceType is what one kind of resource does; A is its argument struct.
type resourceType[A any] interface {
	// validate reports what the struct's tags cannot. It gets the arguments only when
	// all of them are known.
	validate(args A) []plugin.CheckFailure
	// computed names the outputs that are known only once the engine has acted.
	computed() []resource.PropertyKey
	create(ctx context.Context, c call, args A) (resource.ID, outputs, error)
	// read gives nil outputs when the resource is gone.
	read(ctx context.Context, c call, args A) (outputs, error)
	update(ctx context.Context, c call, args A) (outputs, error)
	remove(ctx context.Context, c call, args A) error
}

// initError says that the resource exists and did not come up. Its outputs are
// recorded, with the reason under failedKey unless resumable.
type initError struct {
	reason string
	// summary goes into the state; unlike reason it holds nothing that a container printed.
	summary string
	// resumable failures (a cancelled wait) are taken up again, not replaced.
	resumable bool
}

func (e *initError) Error() string { return e.reason }

// Provider serves the resource types. The zero value is not ready: use New.
type Provider struct {
	plugin.UnimplementedProvider

	types map[tokens.Type]anyType

	run run

	mu       sync.Mutex
	engine   engine
	engineID string
	host     *host
	stopping context.Context // ends with SignalCancellation, Pulumi's call of its own for it
	stop     context.CancelFunc
}

var (
	_ plugin.Provider     = (*Provider)(nil)
	_ plugin.GrpcProvider = (*Provider)(nil)
)

// New is a provider that talks to the engine named by its configuration, or, where
// that names none, by DOCKER_HOST, DOCKER_CONTEXT or the docker CLI's current context.
func New() *Provider {
	stopping, stop := context.WithCancel(context.Background())
	return &Provider{
		stopping: stopping,
		stop:     stop,
		types: map[tokens.Type]anyType{
			"docker:index/network:Network":         erase(networkType{}),
			"docker:index/volume:Volume":           erase(volumeType{}),
			"docker:index/remoteImage:RemoteImage": erase(remoteImageType{}),
			"docker:index/container:Container":     erase(containerType{}),
			"docker:index/image:Image":             erase(imageType{}),
		},
	}
}

// Handshake connects back to the Pulumi engine, for progress messages.
func (p *Provider) Handshake(
	_ context.Context, req plugin.ProviderHandshakeRequest,
) (*plugin.ProviderHandshakeResponse, error) {
	return &plugin.ProviderHandshakeResponse{
		AcceptSecrets: true, AcceptResources: true, AcceptOutputs: true,
	}, p.Attach(req.EngineAddress)
}

// Attach connects to the Pulumi engine at the address; an empty one does nothing.
func (p *Provider) Attach(address string) error {
	if address == "" {
		return nil
	}
	h, err := dialHost(address)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.host = h
	return nil
}

// Close ends every wait.
func (p *Provider) Close() error {
	p.stop()
	return nil
}

// SignalCancellation ends every wait; what is under way returns an error.
func (p *Provider) SignalCancellation(context.Context) error {
	p.stop()
	return nil
}

// GetPluginInfo tells Version.
func (p *Provider) GetPluginInfo(context.Context) (plugin.PluginInfo, error) {
	version, err := semver.Parse(Version)
	if err != nil {
		return plugin.PluginInfo{}, fmt.Errorf("version %q of this plugin: %w", Version, err)
	}
	return plugin.PluginInfo{Version: &version}, nil
}

// CheckConfig accepts host and context; the other settings of the official provider
// are refused when they are set.
func (p *Provider) CheckConfig(
	_ context.Context, req plugin.CheckConfigRequest,
) (plugin.CheckConfigResponse, error) {
	return plugin.CheckConfigResponse{Properties: req.News, Failures: decode(req.News, new(engineConfig))}, nil
}

// DiffConfig never replaces a provider: its resources stay where they are.
func (p *Provider) DiffConfig(_ context.Context, req plugin.DiffConfigRequest) (plugin.DiffConfigResponse, error) {
	diff := diffArgs[engineConfig](req.OldInputs, req.NewInputs)
	if len(diff) == 0 {
		return plugin.DiffConfigResponse{Changes: plugin.DiffNone}, nil
	}
	return plugin.DiffConfigResponse{Changes: plugin.DiffSome, DetailedDiff: diff}, nil
}

// Configure prepares the client. It does not reach for the engine, so that a preview
// needs none.
func (p *Provider) Configure(_ context.Context, req plugin.ConfigureRequest) (plugin.ConfigureResponse, error) {
	var config engineConfig
	decode(req.Inputs, &config)
	e, err := engines.Open(config.Host, config.Context)
	if err != nil {
		return plugin.ConfigureResponse{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.engine = e
	return plugin.ConfigureResponse{}, nil
}

func (p *Provider) typeOf(t tokens.Type) (anyType, error) {
	found, ok := p.types[t]
	if !ok {
		return nil, fmt.Errorf("%s is not served by the offline docker provider: "+
			"use the official docker plugin for it (`platform init` chooses the provider)", t)
	}
	return found, nil
}

// begin is what create, read, update and delete have in common: the resource's type,
// the call, and a context that also ends when the run is cancelled. Outside of previews
// it refuses a resource that lives on another engine than the connected one.
func (p *Provider) begin(
	ctx context.Context, t tokens.Type, urn resource.URN, preview bool, c call,
) (context.Context, context.CancelFunc, anyType, call, error) {
	kind, err := p.typeOf(t)
	if err != nil {
		return nil, nil, nil, c, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c.engine, c.progress, c.run = p.engine, progress{host: p.host, urn: urn}, &p.run
	ctx, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(p.stopping, cancel)
	done := func() { unhook(); cancel() }
	if c.engineID = c.recordedText(engineKey); !preview {
		if err := p.findEngine(ctx, &c); err != nil {
			done()
			return nil, nil, nil, c, err
		}
	}
	return ctx, done, kind, c, nil
}

// findEngine fills in the connected engine's ID and compares it with the recorded one.
// The caller holds the lock.
func (p *Provider) findEngine(ctx context.Context, c *call) error {
	if p.engineID == "" {
		found, err := p.engine.Info(ctx, client.InfoOptions{})
		if err != nil {
			return fmt.Errorf("docker engine %s: %w", p.engine.DaemonHost(), err)
		}
		p.engineID = found.Info.ID
	}
	c.engineID = p.engineID
	recorded := c.recordedText(engineKey)
	switch {
	case recorded == "" || recorded == c.engineID:
		return nil
	case !c.run.first(engineKey):
		return errors.New("it lives on the other Docker engine too, and was not touched")
	}
	return fmt.Errorf("this stack lives on the Docker engine %s, and the connected one (%s) is %s; nothing was touched\n"+
		"Fix: name the right engine with `DOCKER_HOST` or `docker context use`. To move the stack on purpose, run `platform down` "+
		"on the old engine, remove `engine` from the stack's settings, and run `platform up`",
		recorded, p.engine.DaemonHost(), c.engineID)
}

// Check reports every fault of a resource's inputs at once.
func (p *Provider) Check(_ context.Context, req plugin.CheckRequest) (plugin.CheckResponse, error) {
	kind, err := p.typeOf(req.Type)
	if err != nil {
		return plugin.CheckResponse{}, err
	}
	properties, failures, err := kind.check(req.News)
	for i := range failures {
		// Pulumi prints the value of a property that it is told of, and it may be a
		// secret; the reason has the name.
		failures[i].Property = ""
	}
	return plugin.CheckResponse{Properties: properties, Failures: failures}, err
}

// Diff says what a change of inputs, a failed start or drift found by a read asks for.
// A replacement deletes the old resource first where names, ports and addresses exist
// once, that is for all but images.
func (p *Provider) Diff(_ context.Context, req plugin.DiffRequest) (plugin.DiffResponse, error) {
	kind, err := p.typeOf(req.Type)
	if err != nil {
		return plugin.DiffResponse{}, err
	}
	if err := ours(req.OldOutputs); err != nil {
		return plugin.DiffResponse{}, err
	}
	diff := kind.diff(req.OldInputs, req.NewInputs)
	if req.OldOutputs.HasValue(failedKey) {
		diff[failedKey] = plugin.PropertyDiff{Kind: plugin.DiffUpdateReplace}
	}
	for key := range objectOf(req.OldOutputs[driftKey]) {
		path := driftKey + "." + string(key)
		if _, live := liveDrift[key]; live {
			diff[path] = plugin.PropertyDiff{Kind: plugin.DiffUpdate}
		} else {
			diff[path] = plugin.PropertyDiff{Kind: plugin.DiffUpdateReplace}
		}
	}
	if len(diff) == 0 {
		return plugin.DiffResponse{Changes: plugin.DiffNone}, nil
	}
	return plugin.DiffResponse{
		Changes: plugin.DiffSome, DetailedDiff: diff, DeleteBeforeReplace: !kind.coexists(),
	}, nil
}

// Create makes the resource; in a preview it only says which outputs will be known later.
func (p *Provider) Create(ctx context.Context, req plugin.CreateRequest) (plugin.CreateResponse, error) {
	ctx, done, kind, c, err := p.begin(ctx, req.Type, req.URN, req.Preview, call{inputs: req.Properties})
	if err != nil {
		return plugin.CreateResponse{}, err
	}
	defer done()
	if req.Preview {
		return plugin.CreateResponse{Properties: c.state(kind.unknowns())}, nil
	}
	id, out, err := kind.create(ctx, c)
	if err != nil {
		return plugin.CreateResponse{}, failure(c.cutOff(err), id, c.state(out))
	}
	return plugin.CreateResponse{ID: id, Properties: c.state(out)}, nil
}

// Read looks at the resource. Inputs come back as recorded; what drifted stands under
// driftKey of the outputs. A resource that is gone has an empty id.
func (p *Provider) Read(ctx context.Context, req plugin.ReadRequest) (plugin.ReadResponse, error) {
	if len(req.State) == 0 {
		return plugin.ReadResponse{}, fmt.Errorf("the offline docker provider does not import: " +
			"use the official docker plugin for it")
	}
	if err := ours(req.State); err != nil {
		return plugin.ReadResponse{}, err
	}
	ctx, done, kind, c, err := p.begin(ctx, req.Type, req.URN, false,
		call{id: req.ID, inputs: req.Inputs, recorded: req.State})
	if err != nil {
		return plugin.ReadResponse{}, err
	}
	defer done()
	out, err := kind.read(ctx, c)
	if err != nil || out == nil {
		return plugin.ReadResponse{}, err
	}
	return plugin.ReadResponse{ReadResult: plugin.ReadResult{
		ID: req.ID, Inputs: req.Inputs, Outputs: c.state(out),
	}}, nil
}

// Update carries out what needs no replacement.
func (p *Provider) Update(ctx context.Context, req plugin.UpdateRequest) (plugin.UpdateResponse, error) {
	if err := ours(req.OldOutputs); err != nil {
		return plugin.UpdateResponse{}, err
	}
	ctx, done, kind, c, err := p.begin(ctx, req.Type, req.URN, req.Preview,
		call{id: req.ID, inputs: req.NewInputs, recorded: req.OldOutputs})
	if err != nil {
		return plugin.UpdateResponse{}, err
	}
	defer done()
	if req.Preview {
		return plugin.UpdateResponse{Properties: c.state(kind.previewUpdate(c))}, nil
	}
	out, err := kind.update(ctx, c)
	if err != nil {
		return plugin.UpdateResponse{}, failure(c.cutOff(err), req.ID, c.state(out))
	}
	return plugin.UpdateResponse{Properties: c.state(out)}, nil
}

// Delete removes the resource; one that is gone already is no error.
func (p *Provider) Delete(ctx context.Context, req plugin.DeleteRequest) (plugin.DeleteResponse, error) {
	if err := ours(req.Outputs); err != nil {
		return plugin.DeleteResponse{}, err
	}
	ctx, done, kind, c, err := p.begin(ctx, req.Type, req.URN, false,
		call{id: req.ID, inputs: req.Inputs, recorded: req.Outputs})
	if err != nil {
		return plugin.DeleteResponse{}, err
	}
	defer done()
	// A resource that got another name in the program is created before the old one is
	// deleted, and takes over the same container.
	if urn, ok := p.run.takenOver.Load(req.ID); ok && urn != req.URN {
		return plugin.DeleteResponse{}, nil
	}
	return plugin.DeleteResponse{}, c.cutOff(kind.remove(ctx, c))
}

// ours refuses states that this provider did not write.
func ours(recorded resource.PropertyMap) error {
	if recorded.HasValue(markerKey) {
		return nil
	}
	return errForeignState
}

// state is what stands in the state file: inputs, outputs, this provider's mark and
// the engine's ID.
func (c call) state(out outputs) resource.PropertyMap {
	all := c.inputs.Copy()
	maps.Copy(all, out)
	all[markerKey] = resource.NewProperty(Version)
	if c.engineID != "" {
		all[engineKey] = resource.NewProperty(c.engineID)
	}
	return all
}

// cutOff says of an answer that broke off which connection that was: the client says
// "EOF" alone.
func (c call) cutOff(err error) error {
	var failed *initError
	if err == nil || errors.As(err, &failed) || !strings.Contains(err.Error(), "EOF") || strings.Contains(err.Error(), c.engine.DaemonHost()) {
		return err
	}
	return fmt.Errorf("the connection to the Docker engine at %s was cut: %w. Fix: docker info must work, then the same command again", c.engine.DaemonHost(), err)
}

// failure turns an initError into Pulumi's answer for "exists, but did not come up",
// which records the resource. Other errors pass.
func failure(err error, id resource.ID, all resource.PropertyMap) error {
	var failed *initError
	if !errors.As(err, &failed) {
		return err
	}
	if failed.resumable {
		all[driftKey] = resource.NewProperty(resource.PropertyMap{"health": resource.NewProperty(failed.summary)})
	} else {
		all[failedKey] = resource.NewProperty(failed.summary)
	}
	properties, marshalErr := plugin.MarshalProperties(all, plugin.MarshalOptions{
		KeepUnknowns: true, KeepSecrets: true, KeepResources: true,
	})
	if marshalErr != nil {
		return errors.Join(err, marshalErr)
	}
	return rpcerror.WithDetails(rpcerror.New(codes.Unknown, failed.reason), &pulumirpc.ErrorResourceInitFailed{
		Id: string(id), Properties: properties, Reasons: []string{failed.reason},
	})
}
