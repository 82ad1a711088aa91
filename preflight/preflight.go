// Package preflight checks, before anything is changed, whether a stack can run on an
// engine. It finds ports, names and subnets that are in use, an engine that is too old,
// folders that are missing, and data that the images cannot read, and reports all of it
// at once. Objects of the stack itself do not count.
package preflight

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"

	engines "trading-platform/engine"
	"trading-platform/fault"
	"trading-platform/plan"
	"trading-platform/settings"
)

// Connect opens and identifies an engine: that of the stack's settings docker:host and docker:certPath, or, if they are
// empty, the one that the docker command would use. Its error says how to start an engine.
func Connect(ctx context.Context, set settings.Docker) (*client.Client, engines.Ref, error) {
	ref, err := engines.Find(set.Host, set.CertPath)
	if err == nil {
		var engine *client.Client
		if engine, err = ref.Open(); err == nil {
			var found engines.Ref
			if found, err = engines.Identify(ctx, engine, ref); err == nil { // Check compares its version
				return engine, found, nil
			}
			_ = engine.Close()
		}
	}
	f := fault.Fault{
		Where: "Docker engine",
		What:  "does not answer: " + err.Error(),
		Fix:   "start Docker (Docker Desktop, or: sudo systemctl start docker), or set DOCKER_HOST; docker info must work",
	}
	if ref.Machine() != "" {
		f.Fix = "make this work: docker " + strings.Join(ref.DockerFlags(), " ") + " info"
	}
	return nil, engines.Ref{}, fault.List{f}
}

// SameEngine returns an error if here is not the engine that a stack runs on, which is
// home. A new stack has no home, and can run on any engine.
func SameEngine(stack string, home, here engines.Ref) error {
	if home.ID == "" || home.ID == here.ID {
		return nil
	}
	return fault.List{{
		Where: "Docker engine",
		What:  fmt.Sprintf("stack %s runs on the engine at %s, but docker now connects to another, at %s", stack, home, here),
		Fix: fmt.Sprintf("use that engine: unset DOCKER_HOST, or docker context use …, or: pulumi config set -s %s docker:host %s; or move the stack to this engine, without its data: "+
			"platform init -s %s --move-engine", stack, home.Host, stack),
	}}
}

// check is one run of the checks.
type check struct {
	ctx         context.Context
	engine      client.APIClient
	here        engines.Ref
	plan        *plan.Plan
	set         *settings.Settings
	lastVolumes map[string]string
	faults      fault.List

	// What the engine has, whoever made it.
	containers []container.Summary
	networks   []network.Summary
	volumes    map[string]volume.Volume // by name
}

// Check returns everything that prevents a stack from running, as a fault.List. engine and here
// are what Connect returned. lastVolumes has the names of the volumes that the stack's last run
// used, by their names in the catalog.
func Check(ctx context.Context, engine client.APIClient, here engines.Ref, p *plan.Plan, set *settings.Settings, lastVolumes map[string]string) error {
	c := &check{ctx: ctx, engine: engine, here: here, plan: p, set: set, lastVolumes: lastVolumes}
	if !c.version() || !c.swarm() {
		return c.faults.Err()
	}
	for _, list := range []func() error{c.listContainers, c.listNetworks, c.listVolumes} {
		if err := list(); err != nil {
			return err
		}
	}
	c.names()
	c.ports()
	c.neighbors()
	c.subnets()
	c.oldData()
	c.dockerRoot()
	c.folders()
	c.bases()
	c.data()
	return c.faults.Err()
}

// listContainers, listNetworks and listVolumes ask the engine for what it has, of all stacks.
func (c *check) listContainers() error {
	result, err := c.engine.ContainerList(c.ctx, client.ContainerListOptions{All: true})
	c.containers = result.Items
	return asking("containers", err)
}

func (c *check) listNetworks() error {
	result, err := c.engine.NetworkList(c.ctx, client.NetworkListOptions{})
	c.networks = result.Items
	return asking("networks", err)
}

func (c *check) listVolumes() error {
	result, err := c.engine.VolumeList(c.ctx, client.VolumeListOptions{})
	c.volumes = map[string]volume.Volume{}
	for _, v := range result.Items {
		c.volumes[v.Name] = v
	}
	return asking("volumes", err)
}

// asking returns the error of a list, with what was listed.
func asking(what string, err error) error {
	if err != nil {
		return fmt.Errorf("asking the engine for its %s: %w", what, err)
	}
	return nil
}

// hasVolume reports whether the engine has a volume of this name.
func (c *check) hasVolume(name string) bool {
	_, ok := c.volumes[name]
	return ok
}

// find returns the container with a name, and whether it belongs to this stack. It returns nil if there is none.
func (c *check) find(name string) (found *container.Summary, mine bool) {
	i := slices.IndexFunc(c.containers, func(o container.Summary) bool { return slices.Contains(o.Names, "/"+name) })
	if i < 0 {
		return nil, false
	}
	return &c.containers[i], c.plan.Owns(c.containers[i].Labels)
}

func (c *check) config(key, value string) string {
	return settings.SetCommand(c.plan.Stack, key, value)
}

// version compares the engine's API version with the stack's settings, and reports
// whether the other checks can be made.
func (c *check) version() bool {
	ping, err := c.engine.Ping(c.ctx, client.PingOptions{})
	if err != nil {
		return true // the next request reports the error
	}
	actual, err := settings.ParseVersion(ping.APIVersion)
	if err != nil {
		return true
	}
	if !actual.AtLeast(1, 40) { // the oldest that the provider supports
		c.faults.Add("Docker engine", "install Docker 19.03 or newer", "speaks API %s only; 1.40 is needed", ping.APIVersion)
		return false
	}
	if want := c.set.EngineAPI; !actual.AtLeast(want.Major, want.Minor) {
		c.faults.Add(settings.Project+":engineApi", c.config("engineApi", "'"+ping.APIVersion+"'")+", or: platform init -s "+c.plan.Stack,
			"the stack was set up for API %d.%d, and this engine speaks %s", want.Major, want.Minor, ping.APIVersion)
	}
	return true
}

// owner says who created the object with these labels, and what can be done about it.
func (c *check) owner(labels map[string]string, remove string) (who, fix string) {
	if other := labels[plan.StackLabel]; other == c.plan.Stack {
		return fmt.Sprintf("a stack %s of another project or user (identity %s)", other, labels[plan.IdentityLabel]),
			"take that stack down, or give this one its own namePrefix, portOffset and subnet; or, if it is this stack, and its settings were lost: " +
				c.config("identity", labels[plan.IdentityLabel])
	} else if other != "" {
		fix = "make down STACK=" + other + " (its data stays, and this stack goes on with it)"
		if len(c.plan.Profiles) > 0 {
			fix += fmt.Sprintf("; or have both in one: add %s to profiles in Pulumi.%s.yaml and make up STACK=%s", strings.Join(c.plan.Profiles, ", "), other, other)
		}
		fix += "; or, for a second stack beside it, give this one a namePrefix, portOffset and subnet of its own"
		return "stack " + other, fix
	}
	if project := labels["com.docker.compose.project"]; project != "" {
		return "Docker Compose project " + project,
			"docker compose -p " + project + " down (without -v: the volumes stay, and are taken over)"
	}
	return "something else", remove + "; or " + c.config("namePrefix", "<another>")
}

// taken records an object whose name another owner uses. It adds one fault for all objects of an owner.
func (c *check) taken(object string, labels map[string]string, remove string) {
	who, fix := c.owner(labels, remove)
	if i := slices.IndexFunc(c.faults, func(f fault.Fault) bool { return f.What == "taken by "+who && f.Fix == fix }); i >= 0 {
		c.faults[i].Where += ", " + object
		return
	}
	c.faults.Add(object, fix, "taken by %s", who)
}

// names finds container names that are in use.
func (c *check) names() {
	for _, name := range c.plan.Containers() {
		if holder, mine := c.find(name); holder != nil && !mine {
			c.taken("container "+name, holder.Labels, "docker rm -f "+name)
		}
	}
}

// ports finds host ports that are in use.
func (c *check) ports() {
	for _, s := range c.plan.Services {
		if own, mine := c.find(s.Containers[0]); mine && own.State == container.StateRestarting {
			continue // between two starts the engine keeps the port, but no container shows it
		}
		for _, p := range s.Ports {
			address := netip.AddrPortFrom(netip.MustParseAddr(p.Address), uint16(p.Host)) //nolint:gosec // the plan has none above 65535
			holder, mine := c.holder(address)
			by, stop := "container "+holder, "docker stop "+holder
			switch {
			case mine, slices.Contains(c.plan.Containers(), holder): // names has already reported a container with this name
				continue
			case holder != "":
			case local(c.here) && inUse(address):
				by, stop = "a program on this host", fmt.Sprintf("stop it (sudo ss -ltnp 'sport = :%d' tells which)", address.Port())
			default:
				continue
			}
			c.faults.Add(fmt.Sprintf("port %s of %s", address, s.Name), stop+", or "+c.config("portOffset", "1000"), "taken by %s", by)
		}
	}
}

// holder returns the name of the container that publishes an address, and whether it belongs to this stack.
func (c *check) holder(address netip.AddrPort) (name string, mine bool) {
	for _, o := range c.containers {
		for _, p := range o.Ports {
			same := p.PublicPort == address.Port() && p.Type == "tcp"
			overlap := p.IP == address.Addr() || p.IP.IsUnspecified() || address.Addr().IsUnspecified()
			if same && overlap {
				return strings.TrimPrefix(o.Names[0], "/"), c.plan.Owns(o.Labels)
			}
		}
	}
	return "", false
}

// neighborLimit is the file in which Linux says how many neighbors all its networks together may have.
var neighborLimit = "/proc/sys/net/ipv4/neigh/default/gc_thresh3"

// neighborsEach is how many a container takes, as measured with workers (docs/growth.md): they and the two databases know each other.
const neighborsEach = 4

// neighbors compares the number of containers with what this host's kernel allows. Above it, containers cannot reach each other.
func (c *check) neighbors() {
	text, err := os.ReadFile(neighborLimit)
	limit, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !local(c.here) { // it is not Linux, or another machine
		return
	}
	count := len(c.plan.Containers())
	for _, o := range c.containers {
		if o.State == container.StateRunning && !c.plan.Owns(o.Labels) {
			count++
		}
	}
	if needed := neighborsEach * count; needed > limit {
		c.faults.Add("kernel of this host", fmt.Sprintf("sudo sysctl -w net.ipv4.neigh.default.gc_thresh3=%d, or have fewer replicas", 2*needed),
			"remembers %d network neighbors, and %d containers need about %d", limit, count, needed)
	}
}

// dockerRoot compares the folder that Promtail reads logs from with the engine's own.
func (c *check) dockerRoot() {
	reads := slices.ContainsFunc(c.plan.Services, func(s plan.Service) bool {
		return slices.ContainsFunc(s.Mounts, func(m plan.Mount) bool { return strings.HasPrefix(m.Host, c.set.DockerRoot+"/") })
	})
	if !reads || c.here.Root == "" || c.here.Root == c.set.DockerRoot {
		return
	}
	c.faults.Add(settings.Project+":dockerRoot", c.config("dockerRoot", c.here.Root),
		"is %s, and the engine keeps its containers' logs under %s", c.set.DockerRoot, c.here.Root)
}

// local reports whether the engine certainly runs on this host, so that ports and folders can be checked.
func local(engine engines.Ref) bool {
	return strings.HasPrefix(engine.Host, "unix://") || strings.HasPrefix(engine.Host, "npipe://")
}

// inUse tries to listen on an address. A port that only root can open does not count, because the engine can.
func inUse(address netip.AddrPort) bool {
	l, err := net.Listen("tcp", address.String())
	if err == nil {
		_ = l.Close()
		return false
	}
	return errors.Is(err, syscall.EADDRINUSE)
}

// subnets finds subnets, and names of networks, that are in use.
func (c *check) subnets() {
	for _, want := range c.plan.Networks {
		for _, have := range c.networks {
			if c.plan.Owns(have.Labels) {
				continue // if its name or subnet differs, the next up replaces it
			}
			if have.Name == want.Name {
				c.taken("network "+want.Name, have.Labels, "docker network rm "+have.Name)
				continue
			}
			if want.Subnet == "" {
				continue
			}
			for _, ipam := range have.IPAM.Config {
				if subnet := netip.MustParsePrefix(want.Subnet); ipam.Subnet.Overlaps(subnet) {
					c.faults.Add("subnet "+want.Subnet+" of network "+want.Name,
						c.config("subnet", "172.29.0.0/16")+" (any free one), or: docker network rm "+have.Name,
						"overlaps %s of network %s", ipam.Subnet, have.Name)
				}
			}
		}
	}
}
