package provider

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/blang/semver"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	p "github.com/pulumi/pulumi-go-provider"
	"github.com/pulumi/pulumi-go-provider/integration"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/pulumi/pulumi/sdk/v3/go/property"
	"github.com/stretchr/testify/require"
)

// fakeEngine answers from its fields; a method without an answer here panics, being
// the nil engine's.
type fakeEngine struct {
	client.APIClient

	version string
	// id is the engine's own ID.
	id string
	// inspect answers looks at the container, one after another, the last one forever;
	// inspectErr may fail the look of that number.
	inspect    []container.InspectResponse
	inspectErr func(look int) error
	looks      int
	gone       bool
	log        string
	// happens are the container's events; streamErr then ends their stream.
	happens   []happening
	streamErr error
	// orphan has the name that a create asks for, until it is removed.
	orphan *container.InspectResponse
	// calls are what changed something, in order.
	calls []string

	created   client.ContainerCreateOptions
	createErr error
	startErr  error
	connected []string
	uploaded  []byte
	removed   []client.ContainerRemoveOptions
	stopped   []client.ContainerStopOptions
	updated   []client.ContainerUpdateOptions

	networkRemoveErr, volumeRemoveErr error
	networkInspect                    func(name string) (network.Inspect, error)
	networkLabels                     map[string]string
	attached                          []string
	images                            map[string]string
	pulled                            []string
	pullErr                           error
}

// happening is an event and how long after the one before it comes.
type happening struct {
	after    time.Duration
	action   events.Action
	exitCode string
}

func (f *fakeEngine) ClientVersion() string { return f.version }

func (f *fakeEngine) DaemonHost() string { return "unix:///fake.sock" }

func (f *fakeEngine) Info(context.Context, client.InfoOptions) (client.SystemInfoResult, error) {
	return client.SystemInfoResult{Info: system.Info{ID: f.id}}, nil
}

func (f *fakeEngine) Events(ctx context.Context, _ client.EventsListOptions) client.EventsResult {
	messages, streamEnd := make(chan events.Message), make(chan error, 1)
	go func() {
		for _, h := range f.happens {
			select {
			case <-time.After(h.after):
			case <-ctx.Done():
				return
			}
			message := events.Message{Action: h.action, Actor: events.Actor{Attributes: map[string]string{"exitCode": h.exitCode}}}
			select {
			case messages <- message:
			case <-ctx.Done():
				return
			}
		}
		if f.streamErr != nil {
			streamEnd <- f.streamErr
		}
	}()
	return client.EventsResult{Messages: messages, Err: streamEnd}
}

func (f *fakeEngine) did(format string, a ...any) {
	f.calls = append(f.calls, fmt.Sprintf(format, a...))
}

func (f *fakeEngine) ContainerCreate(
	_ context.Context, options client.ContainerCreateOptions,
) (client.ContainerCreateResult, error) {
	if f.orphan != nil {
		return client.ContainerCreateResult{}, cerrdefs.ErrConflict
	}
	f.did("create %s", options.Name)
	f.created = options
	return client.ContainerCreateResult{ID: "c1"}, f.createErr
}

func (f *fakeEngine) ContainerInspect(
	ctx context.Context, id string, _ client.ContainerInspectOptions,
) (client.ContainerInspectResult, error) {
	if f.orphan != nil && (id == f.orphan.ID || "/"+id == f.orphan.Name) {
		return client.ContainerInspectResult{Container: *f.orphan}, nil
	}
	if f.gone {
		return client.ContainerInspectResult{}, cerrdefs.ErrNotFound
	}
	if ctx.Err() != nil {
		return client.ContainerInspectResult{}, ctx.Err()
	}
	found := f.inspect[min(f.looks, len(f.inspect)-1)]
	f.looks++
	if f.inspectErr != nil {
		if err := f.inspectErr(f.looks); err != nil {
			return client.ContainerInspectResult{}, err
		}
	}
	return client.ContainerInspectResult{Container: found}, nil
}

func (f *fakeEngine) ContainerList(
	context.Context, client.ContainerListOptions,
) (client.ContainerListResult, error) {
	var list client.ContainerListResult
	for _, name := range f.attached {
		list.Items = append(list.Items, container.Summary{Names: []string{"/" + name}})
	}
	return list, nil
}

func (f *fakeEngine) ContainerLogs(
	context.Context, string, client.ContainerLogsOptions,
) (client.ContainerLogsResult, error) {
	frame := make([]byte, 8, 8+len(f.log))
	frame[0] = 1
	binary.BigEndian.PutUint32(frame[4:], uint32(len(f.log)))
	return io.NopCloser(bytes.NewReader(append(frame, f.log...))), nil
}

func (f *fakeEngine) ContainerRemove(
	_ context.Context, id string, options client.ContainerRemoveOptions,
) (client.ContainerRemoveResult, error) {
	f.did("remove %s", id)
	f.removed = append(f.removed, options)
	if f.orphan != nil && id == f.orphan.ID {
		f.orphan = nil
	}
	if f.gone {
		return client.ContainerRemoveResult{}, cerrdefs.ErrNotFound
	}
	return client.ContainerRemoveResult{}, nil
}

func (f *fakeEngine) ContainerStart(
	_ context.Context, id string, _ client.ContainerStartOptions,
) (client.ContainerStartResult, error) {
	f.did("start %s", id)
	if f.startErr == nil && f.orphan != nil {
		f.orphan.State = healthy.State
	}
	err := f.startErr
	if f.orphan != nil {
		f.startErr = nil // of the orphan alone
	}
	return client.ContainerStartResult{}, err
}

func (f *fakeEngine) ContainerUnpause(
	_ context.Context, id string, _ client.ContainerUnpauseOptions,
) (client.ContainerUnpauseResult, error) {
	f.did("unpause %s", id)
	return client.ContainerUnpauseResult{}, nil
}

func (f *fakeEngine) ContainerStop(
	_ context.Context, id string, options client.ContainerStopOptions,
) (client.ContainerStopResult, error) {
	f.did("stop %s", id)
	f.stopped = append(f.stopped, options)
	if f.gone {
		return client.ContainerStopResult{}, cerrdefs.ErrNotFound
	}
	return client.ContainerStopResult{}, nil
}

func (f *fakeEngine) ContainerUpdate(
	_ context.Context, _ string, options client.ContainerUpdateOptions,
) (client.ContainerUpdateResult, error) {
	f.updated = append(f.updated, options)
	return client.ContainerUpdateResult{}, nil
}

func (f *fakeEngine) CopyToContainer(
	_ context.Context, _ string, options client.CopyToContainerOptions,
) (client.CopyToContainerResult, error) {
	var err error
	f.uploaded, err = io.ReadAll(options.Content)
	return client.CopyToContainerResult{}, err
}

func (f *fakeEngine) NetworkConnect(
	_ context.Context, id string, _ client.NetworkConnectOptions,
) (client.NetworkConnectResult, error) {
	f.connected = append(f.connected, id)
	return client.NetworkConnectResult{}, nil
}

func (f *fakeEngine) NetworkCreate(
	_ context.Context, name string, options client.NetworkCreateOptions,
) (client.NetworkCreateResult, error) {
	f.did("create %s", name)
	f.networkLabels = options.Labels
	return client.NetworkCreateResult{ID: "n1"}, nil
}

func (f *fakeEngine) NetworkDisconnect(
	_ context.Context, id string, options client.NetworkDisconnectOptions,
) (client.NetworkDisconnectResult, error) {
	f.did("disconnect %s from %s", options.Container, id)
	return client.NetworkDisconnectResult{}, nil
}

func (f *fakeEngine) NetworkInspect(
	_ context.Context, name string, _ client.NetworkInspectOptions,
) (client.NetworkInspectResult, error) {
	if f.networkInspect != nil {
		found, err := f.networkInspect(name)
		return client.NetworkInspectResult{Network: found}, err
	}
	if f.gone {
		return client.NetworkInspectResult{}, cerrdefs.ErrNotFound
	}
	found := client.NetworkInspectResult{Network: network.Inspect{
		Network:    network.Network{Driver: "bridge", Scope: "local"},
		Containers: map[string]network.EndpointResource{},
	}}
	for _, name := range f.attached {
		found.Network.Containers[name] = network.EndpointResource{Name: name}
	}
	return found, nil
}

func (f *fakeEngine) NetworkRemove(
	_ context.Context, id string, _ client.NetworkRemoveOptions,
) (client.NetworkRemoveResult, error) {
	f.did("remove %s", id)
	return client.NetworkRemoveResult{}, f.networkRemoveErr
}

func (f *fakeEngine) VolumeRemove(
	context.Context, string, client.VolumeRemoveOptions,
) (client.VolumeRemoveResult, error) {
	return client.VolumeRemoveResult{}, f.volumeRemoveErr
}

func (f *fakeEngine) DialHijack(ctx context.Context, _, _ string, _ map[string][]string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (f *fakeEngine) ImageInspect(
	_ context.Context, name string, _ ...client.ImageInspectOption,
) (client.ImageInspectResult, error) {
	id, ok := f.images[name]
	if !ok {
		return client.ImageInspectResult{}, cerrdefs.ErrNotFound
	}
	return client.ImageInspectResult{InspectResponse: image.InspectResponse{ID: id}}, nil
}

func (f *fakeEngine) ImagePull(
	_ context.Context, name string, _ client.ImagePullOptions,
) (client.ImagePullResponse, error) {
	f.pulled = append(f.pulled, name)
	if f.pullErr != nil {
		return nil, f.pullErr
	}
	f.images[name] = "sha256:pulled"
	return fakePull{}, nil
}

type fakePull struct{}

func (fakePull) Read([]byte) (int, error)   { return 0, io.EOF }
func (fakePull) Close() error               { return nil }
func (fakePull) Wait(context.Context) error { return nil }
func (fakePull) JSONMessages(context.Context) iter.Seq2[jsonstream.Message, error] {
	return func(func(jsonstream.Message, error) bool) {}
}

// withEngine serves a provider that talks to the fake.
func withEngine(t *testing.T, e client.APIClient) integration.Server {
	t.Helper()
	return serve(t, t.Context(), e)
}

func serve(t *testing.T, ctx context.Context, e client.APIClient) integration.Server { //nolint:revive // as in the library
	t.Helper()
	served, err := newProvider(e)
	require.NoError(t, err)
	server, err := integration.NewServer(ctx, "docker", semver.MustParse(Version), integration.WithProvider(served))
	require.NoError(t, err)
	return server
}

const (
	networkToken     = "docker:index/network:Network"
	volumeToken      = "docker:index/volume:Volume"
	remoteImageToken = "docker:index/remoteImage:RemoteImage"
	containerToken   = "docker:index/container:Container"
)

func urnOf(token string) resource.URN {
	return resource.NewURN("stack", "project", "", tokens.Type(token), "name")
}

// properties makes a property map of Go values.
func properties(values map[string]any) property.Map { return value(values).AsMap() }

// value makes a property of a Go value; a property in it, a secret or an unknown one,
// stays what it is.
func value(v any) property.Value {
	switch v := v.(type) {
	case nil:
		return property.Value{}
	case property.Value:
		return v
	case map[string]any:
		entries := map[string]property.Value{}
		for key, entry := range v {
			entries[key] = value(entry)
		}
		return property.New(entries)
	case []any:
		elements := make([]property.Value, len(v))
		for i, element := range v {
			elements[i] = value(element)
		}
		return property.New(elements)
	case string:
		return property.New(v)
	case bool:
		return property.New(v)
	case int:
		return property.New(float64(v))
	case float64:
		return property.New(v)
	default:
		panic(v)
	}
}

func secret(v any) property.Value { return value(v).WithSecret(true) }

var unknown = property.New(property.Computed)

// merged is base with the changes; a nil takes a property away.
func merged(base, changes map[string]any) map[string]any {
	all := maps.Clone(base)
	for k, v := range changes {
		if all[k] = v; v == nil {
			delete(all, k)
		}
	}
	return all
}

// reasons are what check says, joined.
func reasons(t *testing.T, server integration.Server, token string, values map[string]any) string {
	t.Helper()
	resp, err := server.Check(p.CheckRequest{Urn: urnOf(token), Inputs: properties(values)})
	require.NoError(t, err)
	var texts []string
	for _, f := range resp.Failures {
		require.Empty(t, f.Property, "Pulumi prints the value of a property that a failure names")
		texts = append(texts, f.Reason)
	}
	return strings.Join(texts, "\n")
}

var errEngine = errors.New("engine says no")
