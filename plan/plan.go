// Package plan resolves a stack: from the catalog and a stack's settings it computes
// which containers run, with their image, environment, ports, mounts, networks, probes
// and dependencies, in the order in which they start. It depends only on its arguments,
// and uses neither an engine nor a clock. So a plan can be printed, compared and tested
// before anything is changed.
package plan

import (
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"trading-platform/catalog"
)

// Plan is a resolved stack.
type Plan struct {
	Stack         string    `json:"stack"`
	Identity      string    `json:"-"` // differs between machines, and is therefore not compared
	NamePrefix    string    `json:"namePrefix"`
	Profiles      []string  `json:"profiles"`
	Provider      string    `json:"provider"`
	RetainVolumes bool      `json:"retainVolumes"`
	Networks      []Network `json:"networks"`
	Volumes       []Volume  `json:"volumes"`
	// RemovedVolumes are those that the catalog has no longer, each with the reason.
	RemovedVolumes map[string]string `json:"removedVolumes,omitempty"`
	Services       []Service         `json:"services"` // each after those it waits for
	Notes          []string          `json:"notes,omitempty"`
	Open           []string          `json:"open,omitempty"`         // warnings about ports that other hosts can reach without a login
	Orchestrator   string            `json:"orchestrator,omitempty"` // settings.Swarm, or empty for one engine

	// Node is the ID of the node of a Swarm that holds the volumes: the manager that the stack's engine is. Only that engine knows it.
	Node string `json:"-"`

	// Unset holds the variables that must be set before the stack can run: required
	// variables without a value, and those with a public default.
	Unset []catalog.Variable `json:"-"`
}

// Network is a bridge network.
type Network struct {
	Key    string `json:"key"`              // its name in the catalog
	Name   string `json:"name"`             // its name on the engine
	Subnet string `json:"subnet,omitempty"` // CIDR; empty for the engine's choice
}

// Volume is a named volume.
type Volume struct {
	Key      string `json:"key"`
	Name     string `json:"name"`
	TakeOver bool   `json:"takeOver,omitempty"` // Name is an existing volume that the user has named
}

// Service is one service with all its replicas.
type Service struct {
	Name       string       `json:"name"`
	Tier       catalog.Tier `json:"tier"`
	Profile    string       `json:"profile,omitempty"`
	Local      bool         `json:"local,omitempty"` // the user's catalog.LocalFile adds or changes it
	Once       bool         `json:"once,omitempty"`  // it runs to its end, and then others start
	Host       *Host        `json:"onHost,omitempty"`
	Containers []string     `json:"containers"` // one name for each replica
	Image      Image        `json:"image"`
	Command    []string     `json:"command,omitempty"`
	User       string       `json:"user,omitempty"`
	Env        []Env        `json:"env,omitempty"`
	Ports      []Port       `json:"ports,omitempty"`
	Mounts     []Mount      `json:"mounts,omitempty"`
	Files      []File       `json:"files,omitempty"`
	Networks   []Attachment `json:"networks"`
	After      []string     `json:"after,omitempty"`
	Probe      Probe        `json:"probe"`
	Health     string       `json:"health,omitempty"` // URL at which other services check its health
	Metrics    string       `json:"metrics,omitempty"`
	Grace      Duration     `json:"grace"`

	// Capabilities are all Linux capabilities of the container; its processes cannot gain others.
	Capabilities []string `json:"capabilities,omitempty"`
	Placement    string   `json:"placement,omitempty"` // on a Swarm, one of AnyNode, DataNode, EveryNode
	Memory       int      `json:"memoryMB"`            // the limit, swap included
	CPUShares    int      `json:"cpuShares,omitempty"` // the weight among all containers when the CPU is short; 1024 if it is 0
	ReadOnly     bool     `json:"readOnly,omitempty"`
	Init         bool     `json:"init,omitempty"` // Docker's init is the first process
	Tmpfs        []string `json:"tmpfs,omitempty"`
	DNSOptions   []string `json:"dnsOptions,omitempty"` // of its resolver, as in resolv.conf
}

// Host is what an app needs that runs on this host. Its container only forwards connections to it.
type Host struct {
	Port int   `json:"port"` // where it has to listen; 0 if it listens nowhere
	Env  []Env `json:"-"`    // its variables, with addresses that this host reaches
}

// Image says where a service's image comes from: a reference, or a build.
type Image struct {
	Reference string `json:"reference,omitempty"`
	Build     *Build `json:"build,omitempty"`
}

// Build is an image built from a folder.
type Build struct {
	Name       string            `json:"name"`       // the tag it gets
	Context    string            `json:"context"`    // folder, absolute or under the project
	Dockerfile string            `json:"dockerfile"` // path of the Dockerfile
	Args       map[string]string `json:"args,omitempty"`
	Push       bool              `json:"push,omitempty"` // to the registry that its name begins with
	// Contexts are built first, because the Dockerfile copies from them by name.
	Contexts []Build `json:"contexts,omitempty"`
}

// FolderArg is the build argument of infra/build-context.Dockerfile that names the
// folder of its context to make an image of.
const FolderArg = "FOLDER"

// Env is one variable of a container.
type Env struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Secret bool   `json:"secret,omitempty"`
}

// Port is one published port.
type Port struct {
	Address   string `json:"address"` // of the host
	Host      int    `json:"host"`
	Container int    `json:"container"`
	URL       string `json:"url,omitempty"` // how users open it
}

// Mount is a volume, or a folder or file of the host, in a container.
type Mount struct {
	Volume   string `json:"volume,omitempty"` // key of a Volume of the plan
	Host     string `json:"host,omitempty"`
	Path     string `json:"path"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	Create   bool   `json:"create,omitempty"` // a missing folder is created empty
}

// File is a file that is put into the container before it starts.
type File struct {
	Path    string
	Content string
	Secret  bool
	// Private files can be read by root only. nginx's master process reads its key as root.
	Private bool
}

// Attachment connects a service to a network, with the service's name as its alias.
type Attachment struct {
	Network string `json:"network"` // key of a Network of the plan
	Alias   string `json:"alias"`
	Address string `json:"address,omitempty"` // fixed address; empty for the engine's choice
}

// Probe is a healthcheck with its timing.
type Probe struct {
	Test          []string `json:"test"`
	Interval      Duration `json:"interval"`
	Timeout       Duration `json:"timeout"`
	Retries       int      `json:"retries"`
	StartPeriod   Duration `json:"startPeriod"`
	StartInterval Duration `json:"startInterval,omitzero"` // 0 if the engine does not support it
}

// WaitTimeout is the longest time until the engine reports a started container as
// healthy or unhealthy, with 30 seconds added for a busy machine.
func (p Probe) WaitTimeout() time.Duration {
	after := p.Timeout.Duration // longer than all retries, if the probe itself makes several checks
	if p.StartInterval.Duration > 0 {
		after = time.Duration(p.Retries) * (p.Interval.Duration + p.Timeout.Duration)
	}
	return p.StartPeriod.Duration + after + 30*time.Second
}

// Restart is the service's restart policy.
func (s Service) Restart() string {
	if s.Once {
		return "no"
	}
	return "unless-stopped"
}

// Condition is what the services that start after this one wait for, as Compose calls it.
func (s Service) Condition() string {
	if s.Once {
		return "service_completed_successfully"
	}
	return "service_healthy"
}

// LogDriver is the log driver of every container.
const LogDriver = "json-file"

// SecurityOptions, DroppedCapabilities and LogOptions are the same for every container too.
var (
	SecurityOptions     = []string{"no-new-privileges:true"}
	DroppedCapabilities = []string{"ALL"}
	LogOptions          = map[string]string{
		"max-size": "10m", "max-file": "3",
		// Promtail reads only the log file, and finds the container's name and labels in it.
		"tag": "{{.Name}}", "labels": "com.docker.compose.project,com.docker.compose.service",
	}
)

// Duration is written in JSON as Go and Docker write it ("1m30s").
type Duration struct{ time.Duration }

// MarshalText writes the canonical form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads it.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	d.Duration, err = time.ParseDuration(string(text))
	return err
}

// Backwards calls stop for each service when the calls for all services that start after it have ended, also with an error. It
// returns the first error.
func (p *Plan) Backwards(stop func(Service) error) error {
	stopped := map[string]chan struct{}{}
	for _, s := range p.Services {
		stopped[s.Name] = make(chan struct{})
	}
	var all errgroup.Group
	for _, s := range p.Services {
		all.Go(func() error {
			defer close(stopped[s.Name])
			for _, dependent := range p.Services {
				if slices.Contains(dependent.After, s.Name) {
					<-stopped[dependent.Name]
				}
			}
			return stop(s)
		})
	}
	return all.Wait()
}

// Value returns the value of one of the service's variables, or "" if it has none of that name.
func (s Service) Value(name string) string {
	for _, e := range s.Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

// Lookup finds a service of the plan.
func (p *Plan) Lookup(name string) (Service, bool) {
	for _, s := range p.Services {
		if s.Name == name {
			return s, true
		}
	}
	return Service{}, false
}

// Containers returns the names of all containers.
func (p *Plan) Containers() (names []string) {
	for _, s := range p.Services {
		names = append(names, s.Containers...)
	}
	return names
}

// Has reports whether a container or network of the plan has this name on the engine.
func (p *Plan) Has(name string) bool {
	return slices.Contains(p.Containers(), name) ||
		slices.ContainsFunc(p.Networks, func(n Network) bool { return n.Name == name })
}

// Volume finds a volume by its name in the catalog. It returns nil if there is none.
func (p *Plan) Volume(key string) *Volume {
	for i := range p.Volumes {
		if p.Volumes[i].Key == key {
			return &p.Volumes[i]
		}
	}
	return nil
}

// URLs returns, by service, the URL of its published port that users open.
func (p *Plan) URLs() map[string]string {
	urls := map[string]string{}
	for _, s := range p.Services {
		for _, port := range s.Ports {
			if port.URL != "" {
				urls[s.Name] = port.URL
			}
		}
	}
	return urls
}

// loopback has the address at which this host reaches a port that is published on all of its addresses.
var loopback = map[netip.Addr]netip.Addr{
	netip.IPv4Unspecified(): netip.AddrFrom4([4]byte{127, 0, 0, 1}),
	netip.IPv6Unspecified(): netip.IPv6Loopback(),
}
