// Package catalog holds what the trading platform consists of, as plain data:
// its services, volumes, networks, profiles and variables. A new service is one
// entry in the file of its tier; everything else in this program reads it here.
//
// The catalog decides nothing about a particular stack: package plan does.
package catalog

//go:generate go test . -run ^TestPage$ -update

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Tier groups services by their place in the architecture. Tiers are also the
// groups of the tree that `pulumi up` prints.
type Tier string

// The tiers, from the ground up.
const (
	Base    Tier = "base"    // databases and observability, in every stack
	API     Tier = "api"     // the platform's HTTP services
	Workers Tier = "workers" // queue workers
	Web     Tier = "web"     // consoles and the login service
	Proxy   Tier = "proxy"   // nginx, the only way in from outside
)

// Tiers lists the tiers in the order in which they are shown.
var Tiers = []Tier{Base, API, Workers, Web, Proxy}

// files names the file of this folder that holds each tier's services.
var files = map[Tier]string{Base: "base.go", API: "apis.go", Workers: "workers.go", Web: "web.go", Proxy: "proxies.go"}

// Profile is a set of services that a stack may add to the base.
type Profile struct {
	Name string
	// Secured profiles are for stacks that others can reach. They refuse passwords and keys that ship with this program.
	Secured bool
	// ClientCerts says that users log in with a client certificate, so `platform init` makes one.
	ClientCerts bool
	// Conflicts names profiles that cannot be in the same stack, with the reason.
	Conflicts map[string]string
}

// Profiles lists every profile. The base services belong to none: every stack runs them.
var Profiles = []Profile{
	{Name: "dev"},
	{Name: "workers"},
	{Name: "mtls", Secured: true, ClientCerts: true, Conflicts: map[string]string{
		"oauth2": "both publish host ports 80 and 443 and want nginx's fixed address",
	}},
	{Name: "oauth2", Secured: true},
	{Name: "manual"},
}

// ProfileOf returns the profile of a service, or the zero value for a base service.
func ProfileOf(s Service) Profile {
	for _, p := range Profiles {
		if p.Name == s.Profile {
			return p
		}
	}
	return Profile{}
}

// Volume is a named volume of the stack.
type Volume struct {
	Name string
	Use  string // what it holds, as shown to users
}

// Volumes lists the named volumes, all of the engine's local driver.
var Volumes = []Volume{
	{"pgdata", "PostgreSQL's cluster"},
	{"redisdata", "Redis' append-only file"},
	{"prometheusdata", "Prometheus' time series"},
	{"grafanadata", "Grafana's database"},
	{"lokidata", "Loki's chunks and index"},
	{"promtaildata", "Promtail's read positions"},
	{"backtest_data", "backtest results and the workers' lock files"},
}

// Names of the two networks.
const (
	DefaultNetwork = "default"          // every service but nginx
	EdgeNetwork    = "trading_platform" // consoles, auth_service and nginx at its fixed address
)

// Network is a bridge network of the stack.
type Network struct {
	Name string
	// Fixed says that the subnet is the stack's `subnet` setting; otherwise the engine chooses.
	Fixed bool
}

// Networks lists the networks.
var Networks = []Network{{Name: DefaultNetwork}, {Name: EdgeNetwork, Fixed: true}}

// Service is one service of the platform. A replica of it is one container.
type Service struct {
	Name    string
	Tier    Tier
	Profile string // the profile that enables it; empty for the base
	About   string // one line that is shown to users

	// App is the folder under apps/ in a checkout of the platform that the image is
	// built from. Empty for a service that runs a stock image.
	App string
	// Image is the stock image, pinned. Empty for an app.
	Image string
	// BuildArgs are the build arguments of an app's Dockerfile.
	BuildArgs []Variable
	// BuildContexts are the build contexts that an app's Dockerfile copies from by name, each a folder of the checkout.
	BuildContexts []Variable

	Command []string // replaces the image's command; empty keeps it
	User    string   // replaces the image's user; empty keeps it
	Env     []Variable
	// Port is where the service listens on the stack's networks; 0 for a service that listens on none.
	Port   int
	Ports  []Port
	Mounts []Mount
	// Files is the folder of infra/files with the service's configuration, laid out as in its container.
	Files string
	// Certs names the files of the stack's certificate folder that are put in /etc/nginx/certs.
	Certs []string

	Networks []string // the networks joined, each with the service's name as its alias
	// Proxy returns the service the stack's fixed nginx address on the edge network.
	Proxy bool

	After   []string // services that must be healthy before this one starts
	Needs   []string // those of After that it cannot run without; it starts without the others if the stack has none
	Probe   Probe
	Metrics Metrics
	// Capabilities are the Linux capabilities that the service needs. All others are dropped.
	Capabilities []string
	// Memory is the container's limit in MB, swap included: far above what the service uses,
	// and below what would bring the host down. The `memory` setting replaces it.
	Memory int
	// Jobs names the variable that holds how many bytes the service's jobs may use; they are added to Memory.
	Jobs string
	// ReadOnly makes the root file system read-only: the service writes only to its volumes,
	// /dev/shm and Tmpfs. The engine cannot copy files into such a container.
	ReadOnly bool
	Tmpfs    []string // paths at which a tmpfs is mounted
	// Init runs Docker's init as the container's first process, for a service that treats the
	// exit of a process that it did not start as a failure of its own.
	Init bool

	// Connections is how many connections a replica holds at most to each server that its variables name: see Clients. Default 4.
	Connections int
	Clients     Clients

	// Grace is how long the service may take to stop before it is killed.
	Grace time.Duration
	// Scalable services can have several replicas; all others have exactly one.
	Scalable bool // it publishes no port, because only one container can
}

// Port is a port, or a range of ports, that a service publishes on the host.
type Port struct {
	Host      int
	Container int // default: the service's Port
	Count     int // number of ports in the range; 0 means 1
	// Login says that every client has to log in. Only such a port is published on
	// `bindAddress`: all others are on loopback, unless `expose` names the service.
	Login bool
	// Guard names the variable with the password that protects the port when it is exposed; empty if nothing does.
	Guard string
	// When names a variable that must be set for the port to be published. If empty, it is always published.
	When string
	// URL is the scheme of the URL that is printed for this port; empty prints none.
	URL string
}

// Mount is a volume or a folder of the host inside a container. Exactly one of
// Volume, Checkout and Host is set.
type Mount struct {
	Volume   string // a name in Volumes
	Checkout string // a folder of the platform's checkout; mounted only when `sourceDir` is given
	Host     string // an absolute path on the engine's host; may contain facts as a Variable's Value does
	Path     string // where in the container
	ReadOnly bool
	// Create says that a missing folder of the checkout is created empty.
	Create bool
}

// Probe is a healthcheck. Package plan decides its interval and retries.
type Probe struct {
	// Command runs in the stock image or, for an app, in the platform's own image.
	Command []string
	// Path is the URL path at the service's Port that answers 200 while it is healthy.
	// Empty for a service that does not speak HTTP; for it, a TCP connection is enough.
	Path string
	// Timeout of one run of the command. Default 5 s.
	Timeout time.Duration
	// Start is Docker's start period: failures in it do not count. It covers the slowest regular start. Default 1 min.
	Start time.Duration
}

// Metrics says how Prometheus scrapes a service at its Port. The zero value means that the service has no metrics.
type Metrics struct {
	Component string        // the target's `component` label
	Path      string        // default /metrics
	Interval  time.Duration // at least 10 s, Prometheus' timeout; default: Prometheus' global interval
}

// Clients says how many connections a server accepts. The zero value means that it has no limit.
type Clients struct {
	Facts    []string // the facts by which variables name it: a service with one of them is a client
	Max      int      // its own default
	Reserved int      // for its probe, backups and users
	// Raise is the command that accepts more, without the number at its end. Empty if Max cannot be raised.
	Raise  []string
	Memory int // in MB, for each connection; the container's limit is raised to what all need
}

// ConnectionsTo returns how many connections a replica holds at most to a server.
func (s Service) ConnectionsTo(server Service) int {
	for _, v := range s.Env {
		for _, fact := range server.Clients.Facts {
			if strings.Contains(v.Value, "${"+fact+"}") {
				return cmp.Or(s.Connections, 4)
			}
		}
	}
	return 0
}

// Address is where other services reach this one, as host:port; empty if it listens on no port.
func (s Service) Address() string {
	if s.Port == 0 {
		return ""
	}
	return s.Name + ":" + strconv.Itoa(s.Port)
}

// URL is Address as an HTTP URL.
func (s Service) URL() string { return "http://" + s.Address() }

// Health is the URL, or tcp://host:port, at which other services can check this one's
// health as its probe does; empty if it listens on no port.
func (s Service) Health() string {
	switch {
	case s.Port == 0:
		return ""
	case s.Probe.Path == "":
		return "tcp://" + s.Address()
	}
	return s.URL() + s.Probe.Path
}

// MetricsURL is where Prometheus scrapes the service; empty if it has no metrics.
func (s Service) MetricsURL() string {
	if s.Metrics.Component == "" {
		return ""
	}
	return s.URL() + cmp.Or(s.Metrics.Path, "/metrics")
}

// Services returns every service, tier by tier, each after the services that it waits for.
func Services() []Service {
	all := slices.Concat(base(), apis(), workers(), web(), proxies())
	for _, s := range all {
		for i, p := range s.Ports {
			s.Ports[i].Container = cmp.Or(p.Container, s.Port)
		}
	}
	return all
}

// Lookup finds a service by name.
func Lookup(name string) (Service, bool) {
	all := Services()
	if i := slices.IndexFunc(all, func(s Service) bool { return s.Name == name }); i >= 0 {
		return all[i], true
	}
	return Service{}, false
}

// ServiceNames returns the names of all services, in catalog order.
func ServiceNames() []string {
	all := Services()
	names := make([]string, len(all))
	for i, s := range all {
		names[i] = s.Name
	}
	return names
}

// ProfileNames returns the names of all profiles.
func ProfileNames() []string {
	names := make([]string, len(Profiles))
	for i, p := range Profiles {
		names[i] = p.Name
	}
	return names
}

// Exposable returns the names of the services that `expose` can list: those with a port without a login.
func Exposable() []string {
	var names []string
	for _, s := range Services() {
		if slices.ContainsFunc(s.Ports, func(p Port) bool { return !p.Login }) {
			names = append(names, s.Name)
		}
	}
	return names
}

// VolumeNames returns the names of all volumes.
func VolumeNames() []string {
	names := make([]string, len(Volumes))
	for i, v := range Volumes {
		names[i] = v.Name
	}
	return names
}
