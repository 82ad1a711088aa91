package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/gob"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"trading-platform/observe"
	"trading-platform/plan"
	"trading-platform/workspace"
)

// floor brings a plan up and down with no engine call that it could do without, each as early as
// the plan's edges allow. No tool can be faster on the same plan.
type floor struct {
	engine *client.Client
	plan   *plan.Plan
}

// The labels by which it finds its containers, and sees that one has changed.
const (
	floorLabel = "trading-platform.bench"
	hashLabel  = "trading-platform.bench.hash"
)

// runFloor is the command of the child process: floor (up|preview|down) <plan in gob>.
func runFloor(ctx context.Context, command, file string) error {
	in, err := os.Open(file) //nolint:gosec // its parent wrote it
	if err != nil {
		return err
	}
	defer in.Close()
	f := &floor{plan: &plan.Plan{}}
	if err := gob.NewDecoder(in).Decode(f.plan); err != nil { //nolint:gosec // its parent wrote it
		return err
	}
	if f.engine, err = client.New(client.FromEnv); err != nil {
		return err
	}
	if command == "down" {
		return f.down(ctx)
	}
	return f.up(ctx, command == "preview")
}

func (f *floor) mine() client.Filters {
	return client.Filters{}.Add("label", floorLabel+"="+f.plan.NamePrefix)
}

// found returns the existing containers by name.
func (f *floor) found(ctx context.Context) (map[string]container.Summary, error) {
	list, err := f.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: f.mine()})
	all := map[string]container.Summary{}
	for _, c := range list.Items {
		all[observe.Name(c)] = c
	}
	return all, err
}

func (f *floor) up(ctx context.Context, dry bool) error {
	images, err := f.engine.ImageList(ctx, client.ImageListOptions{})
	if err != nil {
		return err
	}
	ids := map[string]string{}
	for _, i := range images.Items {
		for _, tag := range i.RepoTags {
			ids[tag] = i.ID
		}
	}
	existing, err := f.found(ctx)
	if err != nil {
		return err
	}
	// The channel of a container is closed when the container is healthy.
	healthy := map[string]chan struct{}{}
	specs := map[string]client.ContainerCreateOptions{}
	for _, s := range f.plan.Services {
		for _, name := range s.Containers {
			spec := f.spec(s, name)
			hash := fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, s, ids[s.Image.Reference])))
			spec.Config.Labels[hashLabel] = hash
			healthy[name] = make(chan struct{})
			if old, ok := existing[name]; ok && old.Labels[hashLabel] == hash && strings.Contains(old.Status, "(healthy)") {
				close(healthy[name])
				continue
			}
			specs[name] = spec
		}
	}
	if dry || len(specs) == 0 {
		fmt.Println(len(specs), "to create")
		return nil
	}
	events := f.engine.Events(ctx, client.EventsListOptions{Filters: f.mine().Add("event", "health_status")})
	go func() {
		seen := map[string]bool{}
		for m := range events.Messages {
			name := m.Actor.Attributes["name"]
			if _, waited := specs[name]; waited && !seen[name] && strings.HasSuffix(string(m.Action), ": healthy") {
				seen[name] = true
				close(healthy[name])
			}
		}
	}()
	if len(existing) == 0 {
		if err := f.networks(ctx); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	starting := make(chan struct{}, workspace.Parallel()) // faster than all at once
	for _, s := range f.plan.Services {
		for _, name := range s.Containers {
			if spec, ok := specs[name]; ok {
				group.Go(func() error { return f.start(ctx, s, spec, existing[name].ID, healthy, starting) })
			}
		}
	}
	return group.Wait()
}

// start replaces or creates a container, starts it when those that it waits for are healthy, and waits for its own health.
func (f *floor) start(ctx context.Context, s plan.Service, spec client.ContainerCreateOptions, old string, healthy map[string]chan struct{}, starting chan struct{}) error {
	if old != "" {
		if err := f.remove(ctx, old, s); err != nil {
			return err
		}
	}
	made, err := f.engine.ContainerCreate(ctx, spec)
	if err != nil {
		return fmt.Errorf("%s: %w", spec.Name, err)
	}
	for _, a := range s.Networks[1:] {
		if _, err := f.engine.NetworkConnect(ctx, f.network(a.Network), client.NetworkConnectOptions{Container: made.ID, EndpointConfig: endpoint(a)}); err != nil {
			return err
		}
	}
	if len(s.Files) > 0 {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		for _, file := range s.Files {
			if err := w.WriteHeader(&tar.Header{Name: file.Path[1:], Size: int64(len(file.Content)), Mode: 0o644}); err != nil {
				return err
			}
			_, _ = w.Write([]byte(file.Content)) // into memory
		}
		_ = w.Close()
		if _, err := f.engine.CopyToContainer(ctx, made.ID, client.CopyToContainerOptions{DestinationPath: "/", Content: &archive}); err != nil {
			return err
		}
	}
	wait := func(name string) error {
		select {
		case <-healthy[name]:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for _, name := range s.After {
		after, _ := f.plan.Lookup(name)
		for _, c := range after.Containers {
			if err := wait(c); err != nil {
				return err
			}
		}
	}
	starting <- struct{}{}
	defer func() { <-starting }()
	if _, err := f.engine.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}); err != nil {
		return err
	}
	return wait(spec.Name)
}

// networks creates those with a subnet first, because the engine could give that subnet to another. It
// creates the volumes with the containers.
func (f *floor) networks(ctx context.Context) error {
	for _, n := range slices.SortedStableFunc(slices.Values(f.plan.Networks), func(a, b plan.Network) int { return cmp.Compare(b.Subnet, a.Subnet) }) {
		options := client.NetworkCreateOptions{Driver: "bridge", Labels: map[string]string{floorLabel: f.plan.NamePrefix}}
		if n.Subnet != "" {
			options.IPAM = &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix(n.Subnet)}}}
		}
		if _, err := f.engine.NetworkCreate(ctx, n.Name, options); err != nil {
			return err
		}
	}
	return nil
}

// network returns the name on the engine of a network of the plan.
func (f *floor) network(key string) string {
	i := slices.IndexFunc(f.plan.Networks, func(n plan.Network) bool { return n.Key == key })
	return f.plan.Networks[i].Name
}

func endpoint(a plan.Attachment) *network.EndpointSettings {
	e := &network.EndpointSettings{Aliases: []string{a.Alias}}
	if a.Address != "" {
		e.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr(a.Address)}
	}
	return e
}

func (f *floor) remove(ctx context.Context, id string, s plan.Service) error {
	grace := int(s.Grace.Seconds())
	if _, err := f.engine.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: &grace}); err != nil {
		return err
	}
	_, err := f.engine.ContainerRemove(ctx, id, client.ContainerRemoveOptions{})
	return err
}

// down stops and removes each service when all those that start after it are gone.
func (f *floor) down(ctx context.Context) error {
	existing, err := f.found(ctx)
	if err != nil {
		return err
	}
	err = f.plan.Backwards(func(s plan.Service) error {
		var replicas errgroup.Group
		for _, name := range s.Containers {
			replicas.Go(func() error { return f.remove(ctx, existing[name].ID, s) })
		}
		return replicas.Wait()
	})
	if err != nil {
		return err
	}
	var group errgroup.Group
	for _, n := range f.plan.Networks {
		group.Go(func() error { _, err := f.engine.NetworkRemove(ctx, n.Name, client.NetworkRemoveOptions{}); return err })
	}
	return group.Wait()
}

// spec is a container of the plan in the form of the engine's API.
func (f *floor) spec(s plan.Service, name string) client.ContainerCreateOptions {
	c := &container.Config{
		Image: s.Image.Reference, Cmd: s.Command, User: s.User, ExposedPorts: network.PortSet{}, Labels: map[string]string{floorLabel: f.plan.NamePrefix},
		Healthcheck: &container.HealthConfig{
			Test: s.Probe.Test, Interval: s.Probe.Interval.Duration, Timeout: s.Probe.Timeout.Duration, Retries: s.Probe.Retries,
			StartPeriod: s.Probe.StartPeriod.Duration, StartInterval: s.Probe.StartInterval.Duration,
		},
	}
	for _, e := range s.Env {
		c.Env = append(c.Env, e.Name+"="+e.Value)
	}
	limit := int64(s.Memory) << 20
	h := &container.HostConfig{
		LogConfig:     container.LogConfig{Type: plan.LogDriver, Config: maps.Clone(plan.LogOptions)},
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyMode(s.Restart())}, SecurityOpt: plan.SecurityOptions,
		CapDrop: plan.DroppedCapabilities, CapAdd: s.Capabilities, ReadonlyRootfs: s.ReadOnly, Tmpfs: map[string]string{}, DNSOptions: s.DNSOptions,
		Resources: container.Resources{Memory: limit, MemorySwap: limit, CPUShares: int64(s.CPUShares)}, PortBindings: network.PortMap{},
		NetworkMode: container.NetworkMode(f.network(s.Networks[0].Network)),
	}
	if s.Init {
		h.Init = &s.Init
	}
	for _, folder := range s.Tmpfs {
		h.Tmpfs[folder] = ""
	}
	for _, p := range s.Ports {
		port := network.MustParsePort(strconv.Itoa(p.Container) + "/tcp")
		c.ExposedPorts[port] = struct{}{}
		h.PortBindings[port] = []network.PortBinding{{HostIP: netip.MustParseAddr(p.Address), HostPort: strconv.Itoa(p.Host)}}
	}
	for _, m := range s.Mounts {
		bind := m.Host + ":" + m.Path
		if m.Volume != "" {
			bind = f.plan.Volume(m.Volume).Name + ":" + m.Path
		}
		if m.ReadOnly {
			bind += ":ro"
		}
		h.Binds = append(h.Binds, bind)
	}
	return client.ContainerCreateOptions{Name: name, Config: c, HostConfig: h, NetworkingConfig: &network.NetworkingConfig{
		EndpointsConfig: map[string]*network.EndpointSettings{string(h.NetworkMode): endpoint(s.Networks[0])},
	}}
}
