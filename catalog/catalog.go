// Package catalog holds what the trading platform consists of, as plain data:
// its services, volumes, networks, profiles and variables. A new service is one
// entry in the file of its tier; everything else in this program reads it here.
//
// The catalog decides nothing about a particular stack: package plan does.
package catalog

//go:generate go test . -run ^TestPage$ -update

import (
	"cmp"
	"errors"
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
	Base          Tier = "base"          // databases, metrics and logs, in every stack
	API           Tier = "api"           // the platform's HTTP services
	Workers       Tier = "workers"       // queue workers
	Web           Tier = "web"           // consoles and the login service
	Proxy         Tier = "proxy"         // nginx, the only way in from outside
	Observability Tier = "observability" // exporters, and what passes alerts on
	Local         Tier = "local"         // what LocalFile adds
)

// Tiers has every tier of this folder, with the file that holds its services.
var Tiers = map[Tier]string{
	Base: "base.go", API: "apis.go", Workers: "workers.go", Web: "web.go", Proxy: "proxies.go", Observability: "observability.go",
}

// Owners has, by tier, the team that answers for a service without an Owner of its own.
var Owners = map[Tier]string{
	Base: "operations", API: "trading", Workers: "research", Web: "web", Proxy: "operations", Observability: "operations", Local: "this machine's user",
}

// Rule is a rule that `platform plan --check` checks.
type Rule string

// The rules.
const (
	RuleLatest   Rule = "pinned-image"  // an image has a tag other than latest, or a digest
	RuleLoopback Rule = "loopback-only" // a port beyond loopback is named by a setting
	RuleProbe    Rule = "probe"         // a service has a probe
	RuleMemory   Rule = "memory-limit"  // a service has a memory limit
	RuleOwner    Rule = "owner"         // a service has an owner
	RuleVolume   Rule = "volume-kept"   // a volume of the revision that is compared with is still there
)

// Rules lists every rule.
var Rules = []Rule{RuleLatest, RuleLoopback, RuleProbe, RuleMemory, RuleOwner, RuleVolume}

// RemovedVolumes are the volumes that were removed on purpose, each with the reason.
var RemovedVolumes = map[string]string{}

// Profile is a set of services that a stack may add to the base.
type Profile struct {
	Name        string
	Secured     bool              // for stacks that others can reach: passwords and keys that ship with this program are refused
	ClientCerts bool              // users log in with a client certificate, so `platform init` makes one
	Conflicts   map[string]string // the profiles that cannot be in the same stack, with the reason
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
	{Name: "observability"},
}

// Volumes lists the named volumes, all of the engine's local driver.
var Volumes = []string{
	"pgdata",         // PostgreSQL's cluster
	"redisdata",      // Redis' append-only file
	"prometheusdata", // Prometheus' time series
	"grafanadata",    // Grafana's database
	"lokidata",       // Loki's chunks and index
	"promtaildata",   // Promtail's read positions
	"backtest_data",  // backtest results and the workers' lock files
}

// Names of the two networks.
const (
	DefaultNetwork = "default"          // every service but nginx
	EdgeNetwork    = "trading_platform" // consoles, auth_service and nginx at its fixed address
)

// Network is a bridge network of the stack.
type Network struct {
	Name  string
	Fixed bool // the subnet is the stack's `subnet` setting; otherwise the engine chooses
}

// Networks lists the networks.
var Networks = []Network{{Name: DefaultNetwork}, {Name: EdgeNetwork, Fixed: true}}

// Service is one service of the platform. A replica of it is one container.
type Service struct {
	Name    string `yaml:"-"`
	Tier    Tier   `yaml:"-"`
	Line    int    `yaml:"-" json:"-"` // of LocalFile, if that adds or changes the service; else 0
	Profile string // the profile that enables it; empty for the base
	About   string // one line that is shown to users
	Owner   string // the team that answers for it; default: that of its tier, in Owners
	// Exceptions are the rules that it may break, each with the reason.
	Exceptions map[Rule]string

	App           string     // the folder under apps/ of a checkout of the platform that the image is built from; empty for a stock image
	Image         string     // the stock image, pinned; empty for an app
	BuildArgs     []Variable // of the app's Dockerfile
	BuildContexts []Variable // those that the app's Dockerfile copies from by name, each a folder of the checkout
	Sync          []Sync     // what `platform watch` copies into the running container, in place of a build

	Command []string // replaces the image's command; empty keeps it
	User    string   // replaces the image's user; empty keeps it
	Env     []Variable
	Port    int // where it listens on the stack's networks; 0 for a service that listens on none
	Ports   []Port
	Mounts  []Mount
	Files   string   // the folder of infra/files with its configuration, laid out as in its container
	Certs   []string // the files of the stack's certificate folder that are put in /etc/nginx/certs

	Networks []string // the networks joined, each with the service's name as its alias; default: DefaultNetwork
	// Proxy returns the service the stack's fixed nginx address on the edge network.
	Proxy bool

	// Once says that the service runs to its end, with exit code 0, before those start that come after it: it migrates a
	// database, or creates topics. It runs again only when its container changes. It has no port, and no probe but its Start.
	Once    bool
	After   []string // services that must be healthy, or have run to their end, before this one starts
	Needs   []string // those of After that it cannot run without; it starts without the others if the stack has none
	Probe   Probe
	Metrics Metrics

	Capabilities []string // the Linux capabilities that it needs; all others are dropped
	// Memory is the container's limit in MB, swap included: far above what the service uses,
	// and below what would bring the host down. The `memory` setting replaces it.
	Memory int
	Jobs   string // the variable with the number of bytes that its jobs may use; they are added to Memory
	// ReadOnly makes the root file system read-only: the service writes only to its volumes,
	// /dev/shm and Tmpfs. The engine cannot copy files into such a container.
	ReadOnly bool
	Tmpfs    []string // paths at which a tmpfs is mounted
	// Init runs Docker's init as the container's first process, for a service that treats the
	// exit of a process that it did not start as a failure of its own.
	Init bool
	// DNSOptions are options of its resolver, as in resolv.conf.
	DNSOptions []string

	// Connections is how many connections a replica holds at most to each server that its variables name: see Clients. Default 4.
	Connections int
	Clients     Clients

	Grace    time.Duration // how long it may take to stop before it is killed; default 15 s
	Scalable bool          // it can have several replicas, and publishes no port, because only one container can
}

// Port is a port, or a range of ports, that a service publishes on the host.
type Port struct {
	Host      int
	Container int // default: the service's Port
	Count     int // number of ports in the range; 0 means 1
	// Login says that every client has to log in. Only such a port is published on
	// `bindAddress`: all others are on loopback, unless `expose` names the service.
	Login bool
	Guard string // the variable with the password that protects the port when it is exposed; empty if nothing does
	When  string // a variable of the service that must be set for the port to be published; empty publishes it always
	URL   string // the scheme of the URL that is printed for this port; empty prints none
}

// Mount is a volume or a folder of the host inside a container. Exactly one of
// Volume, Checkout and Host is set.
type Mount struct {
	Volume   string // one of Volumes
	Checkout string // a folder of the platform's checkout; mounted only when `sourceDir` is given
	Host     string // an absolute path on the engine's host; may contain facts as a Variable's Value does
	Path     string // where in the container
	ReadOnly bool
	Create   bool // a missing folder of the checkout is created empty
}

// Sync is a file or folder of the checkout that needs no build, such as a web page or a script.
type Sync struct {
	From string // in the checkout
	To   string // in the container
}

// Probe is a healthcheck. Package plan decides its interval and retries.
type Probe struct {
	// Command runs in the stock image or, for an app, in the platform's own image.
	Command []string
	// Path is the URL path at the service's Port that answers 200 while it is healthy.
	// Empty for a service that does not speak HTTP; for it, a TCP connection is enough.
	Path    string
	Timeout time.Duration // of one run of the command; default 5 s
	// Start is Docker's start period: failures in it do not count. It covers the slowest regular start. Default 1 min.
	// For a service that runs once, it is how long that may take. Default 10 min.
	Start time.Duration
}

// Metrics says how Prometheus scrapes a service. The zero value means that the service has no metrics.
type Metrics struct {
	Component string        // the target's `component` label
	Port      int           // default: the service's Port
	Path      string        // default /metrics
	Interval  time.Duration // at least 10 s, Prometheus' timeout; default: Prometheus' global interval
	// Reference says that only the reference app has these metrics: they are not scraped if the service runs its own image.
	Reference bool
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

// Address is where other services reach this one, as host:port, if it listens on a port.
func (s Service) Address() string { return s.Name + ":" + strconv.Itoa(s.Port) }

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
	return "http://" + s.Name + ":" + strconv.Itoa(s.MetricsPort()) + cmp.Or(s.Metrics.Path, "/metrics")
}

// MetricsPort is the port at which Prometheus scrapes the service.
func (s Service) MetricsPort() int { return cmp.Or(s.Metrics.Port, s.Port) }

// Services returns every service, tier by tier, each after the services that it waits for.
func Services() []Service {
	all := withLocal(Tracked())
	for i, s := range all {
		all[i].Ports = slices.Clone(s.Ports)
		all[i].Grace, all[i].Owner = cmp.Or(s.Grace, 15*time.Second), cmp.Or(s.Owner, Owners[s.Tier])
		if s.Networks == nil {
			all[i].Networks = []string{DefaultNetwork}
		}
		for j, p := range s.Ports {
			all[i].Ports[j].Container = cmp.Or(p.Container, s.Port)
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

// namesIf returns the names of the services that have a property, in catalog order.
func namesIf(has func(Service) bool) []string {
	var names []string
	for _, s := range Services() {
		if has(s) {
			names = append(names, s.Name)
		}
	}
	return names
}

// ServiceNames returns the names of all services, in catalog order.
func ServiceNames() []string { return namesIf(func(Service) bool { return true }) }

// Scalable returns the names of the services that can have several replicas.
func Scalable() []string { return namesIf(func(s Service) bool { return s.Scalable }) }

// Exposable returns the names of the services that `expose` can list: those with a port without a login.
func Exposable() []string {
	return namesIf(func(s Service) bool { return slices.ContainsFunc(s.Ports, func(p Port) bool { return !p.Login }) })
}

// HostPorts returns every port that a service may publish on the host where portOffset is 0, sorted.
func HostPorts() (ports []int) {
	for _, s := range Services() {
		for _, p := range s.Ports {
			for i := range max(1, p.Count) {
				ports = append(ports, p.Host+i)
			}
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// ProfileNames returns the names of all profiles.
func ProfileNames() []string {
	names := make([]string, len(Profiles))
	for i, p := range Profiles {
		names[i] = p.Name
	}
	return names
}

// StartOrder sorts services so that each comes after those that it waits for, and otherwise keeps their order. Its error
// has the path of a cycle; the order is then a guess.
func StartOrder(services []Service) (ordered []Service, err error) {
	byName := map[string]Service{}
	for _, s := range services {
		byName[s.Name] = s
	}
	done := map[string]bool{}
	var visit func(name string, path []string)
	visit = func(name string, path []string) {
		s, known := byName[name]
		switch i := slices.Index(path, name); {
		case i >= 0:
			err = cmp.Or(err, errors.New("services wait for each other: "+strings.Join(append(path[i:], name), " → ")))
		case known && !done[name]:
			done[name] = true
			for _, need := range s.After {
				visit(need, append(path, name))
			}
			ordered = append(ordered, s)
		}
	}
	for _, s := range services {
		visit(s.Name, nil)
	}
	return ordered, err
}
