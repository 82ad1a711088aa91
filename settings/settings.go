// Package settings turns a stack's config and dotenv file into one typed, validated
// value, and reports everything that is wrong with them at once.
package settings

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"trading-platform/catalog"
	"trading-platform/engine"
	"trading-platform/fault"
)

// Project is the name of the Pulumi project and the namespace of its config keys.
const Project = "trading-platform"

// The defaults of two settings that every other stack on the same engine needs values of its own for.
const (
	DefaultPrefix = "trading_platform"
	DefaultSubnet = "172.28.0.0/16"
)

// Reference is the key of `images` for the reference app, which replaces every app
// that has neither an image nor a checkout.
const Reference = "reference"

// OfflineVersion is the version by which a stack requests the offline provider plugin.
// The official plugin never has this version, so that Pulumi does not confuse the two
// where both are installed.
const OfflineVersion = "4.11.3-offline.1"

// The providers that a stack can be made with.
const (
	Official = "official" // Pulumi's docker plugin
	Offline  = "offline"  // cmd/pulumi-resource-docker
)

// The orchestrators that a stack can run on.
const (
	OneEngine = "engine" // a Docker engine
	Swarm     = "swarm"  // a Docker Swarm, of which the engine is a manager
)

// Value is a variable's value as the user gave it.
type Value struct {
	Text   string
	Secret bool // given as a Pulumi secret
}

// Settings is the validated config of one stack. Pulumi.yaml describes each
// field under the name given here, with its default.
type Settings struct {
	Stack string // the stack's name; not a setting

	Identity      string                      // identity: distinguishes this stack from others of the same name on one engine
	Engine        engine.Ref                  // engine: the one that the stack runs on; zero until `platform init` or an up has recorded it
	IgnoreCompose []string                    // ignoreCompose: old Compose projects whose data this stack does not take over; "*" is all
	Profiles      []string                    // profiles: what the stack adds to the base
	NamePrefix    string                      // namePrefix: first part of every name on the engine
	BindAddress   netip.Addr                  // bindAddress: host address of the published ports that have a login
	PortOffset    int                         // portOffset: added to every host port
	Subnet        netip.Prefix                // subnet: of the edge network
	NginxAddress  netip.Addr                  // nginxAddress: nginx's fixed address in Subnet
	Images        map[string]string           // images: service (or Reference) → image reference
	SourceDir     string                      // sourceDir: a checkout of the platform, absolute; empty for none
	Variables     map[string]Value            // those of the stack config and of the dotenv file, by name
	ServiceEnv    map[string]map[string]Value // serviceEnv: service → variables that are added to its own or override them
	Replicas      map[string]int              // replicas: worker → number of containers
	Memory        map[string]int              // memory: service → limit in MB, in place of the catalog's
	Volumes       map[string]string           // volumes: volume → name of an existing volume to use
	Disabled      []string                    // disabled: services that the stack does not run
	HandOver      []string                    // handOver: apps that run on this host, in the place of their containers
	Expose        []string                    // expose: services whose ports without a login are published on bindAddress too
	RetainVolumes bool                        // retainVolumes: destroy keeps the volumes and their data
	EngineAPI     Version                     // engineApi: the engine's API version, as `platform init` found it
	DockerRoot    string                      // dockerRoot: the engine's folder on its host, under which containers' logs are
	CertsDir      string                      // certsDir: where `platform certs` writes certificates, absolute; empty for none
	Provider      string                      // provider: Official or Offline
	Orchestrator  string                      // orchestrator: OneEngine or Swarm
	SharedVolumes []string                    // sharedVolumes: volumes that a driver provides with the same data on every node of a Swarm
	Registry      string                      // registry: where built images are pushed, so that every node can pull them; empty for nowhere
	Docker        Docker                      // docker:host and docker:certPath
}

// MaxMemory is the largest memory limit in MB: a terabyte.
const MaxMemory = 1 << 20

// Version is a Docker Engine API version. The zero value means that it is unknown.
type Version struct{ Major, Minor int }

// ParseVersion reads the first two numbers of a version such as 1.44.
func ParseVersion(text string) (v Version, err error) {
	_, err = fmt.Sscanf(text, "%d.%d", &v.Major, &v.Minor)
	return v, err
}

// AtLeast reports whether v is known and not older than major.minor.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// Load validates a source. Its error is a fault.List of everything that is wrong.
func Load(src Source) (*Settings, error) {
	d := &decoder{Source: src, known: []string{dockerHost, dockerCertPath}}
	images := d.local() // first, because the names of its services are known then
	s := &Settings{
		Stack:    src.Stack,
		Profiles: d.names("profiles", "profile", catalog.ProfileNames()),
		NamePrefix: value(d, "namePrefix", DefaultPrefix,
			"a name that the engine accepts for containers and images (letters and digits, with a single . _ - between them, 63 at most)",
			asIs, isPrefix),
		BindAddress: value(d, "bindAddress", "127.0.0.1", "an IP address", netip.ParseAddr),
		PortOffset:  value(d, "portOffset", "0", "a whole number from 0 to 50000", strconv.Atoi, between(0, 50000)),
		Subnet: value(d, "subnet", DefaultSubnet,
			"an IPv4 subnet of at least 16 addresses without host bits, such as 172.28.0.0/16", netip.ParsePrefix, isSubnet),
		Images: entries(d, "images", "service", append(catalog.ServiceNames(), Reference),
			"an image reference, such as registry.example/redis:7-alpine, with a repository in lower case", "<repository>:<tag>", parseImage),
		SourceDir:  value(d, "sourceDir", "", "a folder (a relative path starts at "+src.Root+")", d.path, isFolder),
		Variables:  d.variables(),
		ServiceEnv: d.serviceEnv("serviceEnv"),
		Replicas: entries(d, "replicas", "worker", catalog.Scalable(),
			"a number from 1 to 9999 (to have none, name it in `disabled`)", "1", strconv.Atoi, between(1, 9999)),
		Memory: entries(d, "memory", "service", catalog.ServiceNames(),
			"a number from 64 to "+strconv.Itoa(MaxMemory), "64", strconv.Atoi, between(64, MaxMemory)),
		Volumes:       entries(d, "volumes", "volume", catalog.Volumes, "a name", "<name>", asIs),
		Disabled:      d.names("disabled", "service", catalog.ServiceNames()),
		HandOver:      d.names("handOver", "service", catalog.ServiceNames()),
		Expose:        d.names("expose", "service", catalog.Exposable()),
		RetainVolumes: value(d, "retainVolumes", "true", "true or false", strconv.ParseBool),
		EngineAPI:     value(d, "engineApi", "", `an API version such as "1.44" (quote it)`, ParseVersion),
		DockerRoot:    value(d, "dockerRoot", "/var/lib/docker", "the absolute path of a folder on the engine's host", withoutSlash, isEngineFolder),
		CertsDir:      d.Absolute(d.text("certsDir", "")),
		Provider: value(d, "provider", Official, "one of "+Official+", "+Offline, asIs, func(name string) bool {
			return name == Official || name == Offline
		}),
		Orchestrator: value(d, "orchestrator", OneEngine, "one of "+OneEngine+", "+Swarm, asIs, func(name string) bool {
			return name == OneEngine || name == Swarm
		}),
		SharedVolumes: d.names("sharedVolumes", "volume", catalog.Volumes),
		Registry:      value(d, "registry", "", "the beginning of an image reference, such as registry.example:5000/trading", parseRegistry),
		Identity:      d.text("identity", ""),
		Engine:        value(d, "engine", "", "the id and host of an engine, as `platform init` writes them", parseEngine, isEngine),
		Docker:        src.Docker(),
		IgnoreCompose: d.list("ignoreCompose", "Compose project", "my-trading"),
	}
	s.NginxAddress = d.nginxAddress(s.Subnet)
	maps.Copy(s.Images, images)
	d.conflicts(s.Profiles)
	d.unknown()
	slices.SortFunc(d.faults, func(a, b fault.Fault) int {
		return cmp.Or(cmp.Compare(a.Where, b.Where), cmp.Compare(a.What, b.What))
	})
	return s, d.faults.Err()
}

// PublicHost is the host name of nginx for browsers. It is the Compose stack's, and also
// part of the cookie domain and of the redirect URLs.
const PublicHost = "web-console.trading-platform.local"

// ServerNames returns the names and addresses by which clients reach nginx. Its
// certificate must cover them.
func (s *Settings) ServerNames() []string {
	names := []string{PublicHost, "localhost", "127.0.0.1"}
	if !s.BindAddress.IsUnspecified() && s.BindAddress.String() != "127.0.0.1" {
		names = append(names, s.BindAddress.String())
	}
	return names
}

// OnSwarm reports whether the stack runs on a Swarm.
func (s *Settings) OnSwarm() bool { return s.Orchestrator == Swarm }

// SetCommand returns the `pulumi config set` command for a key, for use as a fix.
func SetCommand(stack, key, value string) string {
	return strings.TrimSpace("pulumi config set -s " + stack + " " + key + " " + value)
}

// SetSecretCommand returns the command that sets a secret variable. Pulumi asks for the
// value, so that it stays out of the shell's history.
func SetSecretCommand(stack, name string) string {
	return "pulumi config set -s " + stack + " --secret " + name
}
