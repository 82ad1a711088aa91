package provider

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

type containerArgs struct {
	Name             string            `pulumi:"name" provider:"replaceOnChanges"`
	Image            string            `pulumi:"image" provider:"replaceOnChanges"`
	Command          []string          `pulumi:"command,optional" provider:"replaceOnChanges"`
	Envs             []string          `pulumi:"envs,optional" provider:"replaceOnChanges"`
	User             string            `pulumi:"user,optional" provider:"replaceOnChanges"`
	Healthcheck      *healthcheck      `pulumi:"healthcheck,optional" provider:"replaceOnChanges"`
	NetworksAdvanced []attachment      `pulumi:"networksAdvanced,optional" provider:"replaceOnChanges"`
	Ports            []port            `pulumi:"ports,optional" provider:"replaceOnChanges"`
	Volumes          []volumeMount     `pulumi:"volumes,optional" provider:"replaceOnChanges"`
	Uploads          []upload          `pulumi:"uploads,optional" provider:"replaceOnChanges"`
	Labels           []label           `pulumi:"labels,optional" provider:"replaceOnChanges"`
	LogDriver        string            `pulumi:"logDriver,optional" provider:"replaceOnChanges"`
	LogOpts          map[string]string `pulumi:"logOpts,optional" provider:"replaceOnChanges"`
	Tmpfs            map[string]string `pulumi:"tmpfs,optional" provider:"replaceOnChanges"`
	DNSOpts          []string          `pulumi:"dnsOpts,optional" provider:"replaceOnChanges"`
	Init             *bool             `pulumi:"init,optional" provider:"replaceOnChanges"`
	Capabilities     *capabilities     `pulumi:"capabilities,optional" provider:"replaceOnChanges"`
	ReadOnly         bool              `pulumi:"readOnly,optional" provider:"replaceOnChanges"`
	SecurityOpts     []string          `pulumi:"securityOpts,optional" provider:"replaceOnChanges"`

	// The engine can change these on a running container.
	Restart string `pulumi:"restart,optional"`
	// Memory and MemorySwap are in MB; MemorySwap -1 is no limit.
	Memory     int64 `pulumi:"memory,optional"`
	MemorySwap int64 `pulumi:"memorySwap,optional"`
	CPUShares  int64 `pulumi:"cpuShares,optional"`

	// Only this provider reads these. Wait or Attach must be true. A container with Attach runs to its end, and is created when its
	// exit code is 0.
	Wait                bool  `pulumi:"wait,optional"`
	Attach              bool  `pulumi:"attach,optional"`
	MustRun             *bool `pulumi:"mustRun,optional"`
	WaitTimeout         int   `pulumi:"waitTimeout,optional"`
	DestroyGraceSeconds *int  `pulumi:"destroyGraceSeconds,optional"`
	RemoveVolumes       *bool `pulumi:"removeVolumes,optional"`
}

// duration is a Go duration as text ("1m30s").
type duration string

// value returns the duration. It is zero for an empty text, and for a malformed one, which check
// refuses.
func (d duration) value() time.Duration {
	v, _ := time.ParseDuration(string(d))
	return v
}

type healthcheck struct {
	Tests         []string `pulumi:"tests"`
	Interval      duration `pulumi:"interval,optional"`
	Timeout       duration `pulumi:"timeout,optional"`
	StartPeriod   duration `pulumi:"startPeriod,optional"`
	StartInterval duration `pulumi:"startInterval,optional"`
	Retries       int      `pulumi:"retries,optional"`
}

type attachment struct {
	Name        string   `pulumi:"name"`
	Aliases     []string `pulumi:"aliases,optional"`
	IPv4Address string   `pulumi:"ipv4Address,optional"`
}

type port struct {
	Internal int    `pulumi:"internal"`
	External int    `pulumi:"external,optional"`
	IP       string `pulumi:"ip,optional"`
}

type volumeMount struct {
	VolumeName    string `pulumi:"volumeName,optional"`
	HostPath      string `pulumi:"hostPath,optional"`
	ContainerPath string `pulumi:"containerPath"`
	ReadOnly      bool   `pulumi:"readOnly,optional"`
}

type capabilities struct {
	Adds  []string `pulumi:"adds,optional"`
	Drops []string `pulumi:"drops,optional"`
}

// containerSpec is the container in the form of the engine's API. It has only the first of the
// networks, because engines before API 1.44 accept only one at creation.
func containerSpec(args containerArgs) (client.ContainerCreateOptions, []string) {
	var faults []string
	fault := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	config := &container.Config{
		Image: args.Image, Cmd: args.Command, Env: args.Envs, User: args.User, Labels: labelMap(args.Labels),
		Healthcheck: args.Healthcheck.config(), ExposedPorts: network.PortSet{},
	}
	hostConfig := &container.HostConfig{
		LogConfig:      container.LogConfig{Type: args.LogDriver, Config: args.LogOpts},
		RestartPolicy:  container.RestartPolicy{Name: container.RestartPolicyMode(args.Restart)},
		ReadonlyRootfs: args.ReadOnly,
		SecurityOpt:    args.SecurityOpts,
		Tmpfs:          args.Tmpfs,
		DNSOptions:     args.DNSOpts,
		Init:           args.Init,
		Resources:      args.resources(),
		PortBindings:   network.PortMap{},
	}
	if args.Capabilities != nil {
		hostConfig.CapAdd, hostConfig.CapDrop = args.Capabilities.Adds, args.Capabilities.Drops
	}
	for _, v := range args.Volumes {
		if (v.VolumeName == "") == (v.HostPath == "") {
			fault("volumes: %s takes either volumeName or hostPath", v.ContainerPath)
		}
		bind := v.VolumeName + v.HostPath + ":" + v.ContainerPath
		if v.ReadOnly {
			bind += ":ro"
		}
		hostConfig.Binds = append(hostConfig.Binds, bind)
	}
	for _, p := range args.Ports {
		internal, _ := network.PortFrom(uint16(p.Internal), network.TCP) //nolint:gosec // checked below
		if p.Internal < 1 || p.Internal > 65535 || p.External < 0 || p.External > 65535 {
			fault("ports: %d → %d/tcp is not a valid port", p.External, p.Internal)
			continue
		}
		binding := network.PortBinding{HostPort: strconv.Itoa(p.External)} // 0 is a free one
		if p.IP != "" {
			address, err := netip.ParseAddr(p.IP)
			if err != nil {
				fault("ports: %v", err)
			}
			binding.HostIP = address
		}
		config.ExposedPorts[internal] = struct{}{}
		hostConfig.PortBindings[internal] = append(hostConfig.PortBindings[internal], binding)
	}
	spec := client.ContainerCreateOptions{Name: args.Name, Config: config, HostConfig: hostConfig}
	for i, a := range args.NetworksAdvanced {
		settings, err := a.settings()
		if err != nil {
			fault("networksAdvanced: %s: %v", a.Name, err)
		}
		if i == 0 {
			hostConfig.NetworkMode = container.NetworkMode(a.Name)
			spec.NetworkingConfig = &network.NetworkingConfig{
				EndpointsConfig: map[string]*network.EndpointSettings{a.Name: settings},
			}
		}
	}
	return spec, faults
}

// config is the healthcheck in the form of the engine's API.
func (h *healthcheck) config() *container.HealthConfig {
	if h == nil {
		return nil
	}
	return &container.HealthConfig{
		Test: h.Tests, Interval: h.Interval.value(), Timeout: h.Timeout.value(),
		StartPeriod: h.StartPeriod.value(), StartInterval: h.StartInterval.value(), Retries: h.Retries,
	}
}

// resources are the limits that the engine can change on a running container.
func (args containerArgs) resources() container.Resources {
	return container.Resources{Memory: args.Memory * megabyte, MemorySwap: swapBytes(args.MemorySwap), CPUShares: args.CPUShares}
}

func swapBytes(megabytes int64) int64 {
	if megabytes < 0 {
		return -1
	}
	return megabytes * megabyte
}

func (a attachment) settings() (*network.EndpointSettings, error) {
	settings := &network.EndpointSettings{Aliases: a.Aliases}
	if a.IPv4Address == "" {
		return settings, nil
	}
	address, err := netip.ParseAddr(a.IPv4Address)
	if err != nil {
		return settings, err
	}
	settings.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: address}
	return settings, nil
}
