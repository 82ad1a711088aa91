package provider

import (
	"fmt"
	"net/netip"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
)

// containerArgs are docker.Container's inputs. An id is the engine's container id.
type containerArgs struct {
	Name             string            `json:"name"             rule:"required"`
	Image            string            `json:"image"            rule:"required"`
	Command          []string          `json:"command"`
	Entrypoints      []string          `json:"entrypoints"`
	Envs             []string          `json:"envs"             rule:"set"`
	User             string            `json:"user"`
	WorkingDir       string            `json:"workingDir"`
	Healthcheck      *healthcheck      `json:"healthcheck"`
	NetworksAdvanced []attachment      `json:"networksAdvanced" rule:"set"`
	Ports            []port            `json:"ports"            rule:"set"`
	Volumes          []volumeMount     `json:"volumes"          rule:"set"`
	Uploads          []upload          `json:"uploads"          rule:"set"`
	Labels           []label           `json:"labels"           rule:"set"`
	LogDriver        string            `json:"logDriver"`
	LogOpts          map[string]string `json:"logOpts"`
	StopTimeout      *int              `json:"stopTimeout"`
	StopSignal       string            `json:"stopSignal"`
	ShmSize          int64             `json:"shmSize"`
	Tmpfs            map[string]string `json:"tmpfs"`
	Init             *bool             `json:"init"`
	Hosts            []hostEntry       `json:"hosts"            rule:"set"`
	GroupAdds        []string          `json:"groupAdds"        rule:"set"`
	Capabilities     *capabilities     `json:"capabilities"`
	ReadOnly         bool              `json:"readOnly"`
	SecurityOpts     []string          `json:"securityOpts"     rule:"set"`
	Ulimits          []ulimit          `json:"ulimits"          rule:"set"`

	// What the engine changes on a live container.
	Restart string `json:"restart" rule:"update"`
	// Memory and MemorySwap are in MB; MemorySwap -1 is no limit.
	Memory     int64 `json:"memory"     rule:"update"`
	MemorySwap int64 `json:"memorySwap" rule:"update"`

	// What only this provider reads.
	Start               *bool `json:"start"               rule:"update"`
	MustRun             *bool `json:"mustRun"             rule:"update"`
	Wait                bool  `json:"wait"                rule:"update"`
	WaitTimeout         int   `json:"waitTimeout"         rule:"update"`
	DestroyGraceSeconds *int  `json:"destroyGraceSeconds" rule:"update"`
	RemoveVolumes       *bool `json:"removeVolumes"       rule:"update"`
	Rm                  bool  `json:"rm"                  rule:"update"`
}

type healthcheck struct {
	Tests         []string `json:"tests" rule:"required"`
	Interval      duration `json:"interval"`
	Timeout       duration `json:"timeout"`
	StartPeriod   duration `json:"startPeriod"`
	StartInterval duration `json:"startInterval"`
	Retries       int      `json:"retries"`
}

type attachment struct {
	Name        string   `json:"name"    rule:"required"`
	Aliases     []string `json:"aliases" rule:"set"`
	IPv4Address string   `json:"ipv4Address"`
}

type port struct {
	Internal int    `json:"internal" rule:"required"`
	External int    `json:"external"`
	IP       string `json:"ip"`
	Protocol string `json:"protocol"`
}

type volumeMount struct {
	VolumeName    string `json:"volumeName"`
	HostPath      string `json:"hostPath"`
	ContainerPath string `json:"containerPath" rule:"required"`
	ReadOnly      bool   `json:"readOnly"`
}

type hostEntry struct {
	Host string `json:"host" rule:"required"`
	IP   string `json:"ip"   rule:"required"`
}

type ulimit struct {
	Name string `json:"name" rule:"required"`
	Soft int64  `json:"soft" rule:"required"`
	Hard int64  `json:"hard" rule:"required"`
}

type capabilities struct {
	Adds  []string `json:"adds"  rule:"set"`
	Drops []string `json:"drops" rule:"set"`
}

// containerSpec is the container as the engine's API has it. Of the networks it holds
// the first alone: engines before API 1.44 take one at creation.
func containerSpec(args containerArgs) (client.ContainerCreateOptions, []plugin.CheckFailure) {
	var failures []plugin.CheckFailure
	fail := func(property resource.PropertyKey, format string, a ...any) {
		failures = append(failures, plugin.CheckFailure{Property: property, Reason: fmt.Sprintf(format, a...)})
	}
	config := &container.Config{
		Image: args.Image, Cmd: args.Command, Entrypoint: args.Entrypoints, Env: args.Envs,
		User: args.User, WorkingDir: args.WorkingDir, Labels: labelMap(args.Labels),
		StopSignal: args.StopSignal, StopTimeout: args.StopTimeout,
	}
	if h := args.Healthcheck; h != nil {
		config.Healthcheck = &container.HealthConfig{
			Test: h.Tests, Interval: h.Interval.value(), Timeout: h.Timeout.value(),
			StartPeriod: h.StartPeriod.value(), StartInterval: h.StartInterval.value(), Retries: h.Retries,
		}
	}
	hostConfig := &container.HostConfig{
		LogConfig:      container.LogConfig{Type: args.LogDriver, Config: args.LogOpts},
		RestartPolicy:  container.RestartPolicy{Name: container.RestartPolicyMode(args.Restart)},
		GroupAdd:       args.GroupAdds,
		ReadonlyRootfs: args.ReadOnly,
		SecurityOpt:    args.SecurityOpts,
		ShmSize:        args.ShmSize * megabyte,
		Tmpfs:          args.Tmpfs,
		Init:           args.Init,
		Resources:      container.Resources{Memory: args.Memory * megabyte, MemorySwap: swapBytes(args.MemorySwap)},
	}
	if args.Capabilities != nil {
		hostConfig.CapAdd, hostConfig.CapDrop = args.Capabilities.Adds, args.Capabilities.Drops
	}
	for _, u := range args.Ulimits {
		hostConfig.Ulimits = append(hostConfig.Ulimits, &container.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	for _, h := range args.Hosts {
		hostConfig.ExtraHosts = append(hostConfig.ExtraHosts, h.Host+":"+h.IP)
	}
	for i, v := range args.Volumes {
		source := v.VolumeName + v.HostPath
		if (v.VolumeName == "") == (v.HostPath == "") {
			fail(resource.PropertyKey(fmt.Sprintf("volumes[%d]", i)), "volumes: %s takes either volumeName or hostPath", v.ContainerPath)
		}
		bind := source + ":" + v.ContainerPath
		if v.ReadOnly {
			bind += ":ro"
		}
		hostConfig.Binds = append(hostConfig.Binds, bind)
	}
	for i, p := range args.Ports {
		protocol := p.Protocol
		if protocol == "" {
			protocol = "tcp"
		}
		internal, ok := network.PortFrom(uint16(p.Internal), network.IPProtocol(protocol)) //nolint:gosec // checked below
		if !ok || p.Internal < 1 || p.Internal > 65535 || p.External < 0 || p.External > 65535 {
			fail(resource.PropertyKey(fmt.Sprintf("ports[%d]", i)), "ports: %d → %d/%s is no port", p.External, p.Internal, protocol)
			continue
		}
		binding := network.PortBinding{}
		if p.External != 0 {
			binding.HostPort = fmt.Sprint(p.External)
		}
		if p.IP != "" {
			address, err := netip.ParseAddr(p.IP)
			if err != nil {
				fail(resource.PropertyKey(fmt.Sprintf("ports[%d].ip", i)), "ports: %v", err)
			}
			binding.HostIP = address
		}
		if config.ExposedPorts == nil {
			config.ExposedPorts, hostConfig.PortBindings = network.PortSet{}, network.PortMap{}
		}
		config.ExposedPorts[internal] = struct{}{}
		hostConfig.PortBindings[internal] = append(hostConfig.PortBindings[internal], binding)
	}
	spec := client.ContainerCreateOptions{Name: args.Name, Config: config, HostConfig: hostConfig}
	for i, a := range args.NetworksAdvanced {
		settings, err := a.settings()
		if err != nil {
			fail(resource.PropertyKey(fmt.Sprintf("networksAdvanced[%d].ipv4Address", i)), "networksAdvanced: %s: %v", a.Name, err)
		}
		if i == 0 {
			hostConfig.NetworkMode = container.NetworkMode(a.Name)
			spec.NetworkingConfig = &network.NetworkingConfig{
				EndpointsConfig: map[string]*network.EndpointSettings{a.Name: settings},
			}
		}
	}
	return spec, failures
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
