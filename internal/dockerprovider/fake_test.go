package dockerprovider

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"strings"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/stretchr/testify/require"
)

// fakeEngine answers from its fields; a method without an answer here panics, being
// the nil engine's.
type fakeEngine struct {
	engine

	version string
	// inspect answers looks at the container, one after another, the last one forever.
	inspect []container.InspectResponse
	looks   int
	gone    bool
	log     string

	created   client.ContainerCreateOptions
	createErr error
	startErr  error
	connected []string
	uploaded  []byte
	removed   []client.ContainerRemoveOptions
	stopped   []client.ContainerStopOptions
	updated   []client.ContainerUpdateOptions

	networkRemoveErr, volumeRemoveErr, imageRemoveErr error
	attached                                          []string
	images                                            map[string]string
	pulled                                            []string
	pullErr                                           error
}

func (f *fakeEngine) ClientVersion() string { return f.version }

func (f *fakeEngine) Ping(context.Context, client.PingOptions) (client.PingResult, error) {
	return client.PingResult{OSType: "linux"}, nil
}

func (f *fakeEngine) Events(context.Context, client.EventsListOptions) client.EventsResult {
	return client.EventsResult{Messages: make(chan events.Message), Err: make(chan error)}
}

func (f *fakeEngine) ContainerCreate(
	_ context.Context, options client.ContainerCreateOptions,
) (client.ContainerCreateResult, error) {
	f.created = options
	return client.ContainerCreateResult{ID: "c1"}, f.createErr
}

func (f *fakeEngine) ContainerInspect(
	ctx context.Context, _ string, _ client.ContainerInspectOptions,
) (client.ContainerInspectResult, error) {
	if f.gone {
		return client.ContainerInspectResult{}, cerrdefs.ErrNotFound
	}
	if ctx.Err() != nil {
		return client.ContainerInspectResult{}, ctx.Err()
	}
	found := f.inspect[min(f.looks, len(f.inspect)-1)]
	f.looks++
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
	_ context.Context, _ string, options client.ContainerRemoveOptions,
) (client.ContainerRemoveResult, error) {
	f.removed = append(f.removed, options)
	if f.gone {
		return client.ContainerRemoveResult{}, cerrdefs.ErrNotFound
	}
	return client.ContainerRemoveResult{}, nil
}

func (f *fakeEngine) ContainerStart(
	context.Context, string, client.ContainerStartOptions,
) (client.ContainerStartResult, error) {
	return client.ContainerStartResult{}, f.startErr
}

func (f *fakeEngine) ContainerStop(
	_ context.Context, _ string, options client.ContainerStopOptions,
) (client.ContainerStopResult, error) {
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

func (f *fakeEngine) NetworkInspect(
	context.Context, string, client.NetworkInspectOptions,
) (client.NetworkInspectResult, error) {
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
	context.Context, string, client.NetworkRemoveOptions,
) (client.NetworkRemoveResult, error) {
	return client.NetworkRemoveResult{}, f.networkRemoveErr
}

func (f *fakeEngine) VolumeRemove(
	context.Context, string, client.VolumeRemoveOptions,
) (client.VolumeRemoveResult, error) {
	return client.VolumeRemoveResult{}, f.volumeRemoveErr
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

func (f *fakeEngine) ImageRemove(
	context.Context, string, client.ImageRemoveOptions,
) (client.ImageRemoveResult, error) {
	return client.ImageRemoveResult{}, f.imageRemoveErr
}

type fakePull struct{}

func (fakePull) Read([]byte) (int, error)   { return 0, io.EOF }
func (fakePull) Close() error               { return nil }
func (fakePull) Wait(context.Context) error { return nil }
func (fakePull) JSONMessages(context.Context) iter.Seq2[jsonstream.Message, error] {
	return func(func(jsonstream.Message, error) bool) {}
}

// withEngine is a provider that talks to the fake.
func withEngine(e engine) *Provider {
	p := New()
	p.engine = e
	return p
}

const (
	networkToken     = "docker:index/network:Network"
	volumeToken      = "docker:index/volume:Volume"
	remoteImageToken = "docker:index/remoteImage:RemoteImage"
	containerToken   = "docker:index/container:Container"
	imageToken       = "docker:index/image:Image"
)

// properties makes a property map of Go values; a resource.PropertyValue in it, a
// secret or an unknown one, stays what it is.
func properties(values map[string]any) resource.PropertyMap {
	return resource.NewPropertyMapFromMap(values)
}

var unknown = resource.MakeComputed(resource.NewProperty(""))

// merged is base with the changes; a nil takes a property away.
func merged(base, changes map[string]any) map[string]any {
	all := map[string]any{}
	for k, v := range base {
		all[k] = v
	}
	for k, v := range changes {
		if all[k] = v; v == nil {
			delete(all, k)
		}
	}
	return all
}

// reasons are what check says, joined.
func reasons(t *testing.T, p *Provider, token string, values map[string]any) string {
	t.Helper()
	resp, err := p.Check(t.Context(), plugin.CheckRequest{Type: typeToken(token), News: properties(values)})
	require.NoError(t, err)
	var texts []string
	for _, f := range resp.Failures {
		require.Empty(t, f.Property, "Pulumi prints the value of a property that a failure names")
		texts = append(texts, f.Reason)
	}
	return strings.Join(texts, "\n")
}

var errEngine = errors.New("engine says no")
