package plan

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"trading-platform/catalog"
	"trading-platform/fault"
	"trading-platform/infra"
	"trading-platform/settings"
)

// resolver holds the state of resolving one stack.
type resolver struct {
	set    *settings.Settings
	certs  map[string]string
	plan   *Plan
	faults fault.List
	facts  map[string]string
	// password is that of the database, which is a part of the fact database_url.
	password Env
	// reference holds the services that run the reference app.
	reference map[string]bool
	// reachable is why others can reach the stack; empty if they cannot.
	reachable string
	// lacks has the variables that must have another value.
	lacks []*lack
}

// lack is a variable that some services must have another value of, because it has none or its public default.
type lack struct {
	catalog.Variable
	public   bool
	services []string
}

// Resolve returns the plan of the stack that settings describe. certs holds the files of
// the certificate folder by name. It may be nil for a stack without nginx, and for a plan
// that is only printed.
//
// Resolve returns a plan even with an error, as complete as possible, so that preflight
// can check it as well. The error is a fault.List of everything that is wrong.
func Resolve(set *settings.Settings, certs map[string]string) (*Plan, error) {
	r := &resolver{
		set: set, certs: certs, reference: map[string]bool{},
		plan: &Plan{
			Stack: set.Stack, Identity: set.Identity, NamePrefix: set.NamePrefix, Profiles: set.Profiles,
			Provider: set.Provider, RetainVolumes: set.RetainVolumes, RemovedVolumes: catalog.RemovedVolumes,
		},
	}
	if err := catalog.Check(catalog.Services()); err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			where, what, _ := strings.Cut(line, ": ") // the file, or that services wait for each other
			r.faults.Add(where, "correct the entry, or declare what it names in catalog/catalog.go", "%s", what)
		}
	}
	secured := slices.IndexFunc(catalog.Profiles, func(p catalog.Profile) bool { return p.Secured && slices.Contains(set.Profiles, p.Name) })
	switch {
	case secured >= 0:
		r.reachable = "profile " + catalog.Profiles[secured].Name + " is for stacks that others can reach"
	case !set.BindAddress.IsLoopback():
		r.reachable = "bindAddress " + set.BindAddress.String() + " opens the stack to others"
	}
	r.resolveFacts(secured >= 0)
	r.networks()
	r.volumes()
	services, _ := catalog.StartOrder(r.enabled()) // Check has reported a cycle
	for _, s := range services {
		r.plan.Services = append(r.plan.Services, r.service(s))
	}
	r.handOver(services)
	r.capacity(services)
	if r.set.OnSwarm() {
		r.swarm(services)
	}
	r.contracts(services)
	r.files(services)
	r.reportLacks()
	return r.plan, r.faults.Err()
}

// httpsPort is nginx's HTTPS port on the host, before portOffset is added.
const httpsPort = 443

// resolveFacts sets the values of catalog.Facts.
func (r *resolver) resolveFacts(secured bool) {
	postgres, _ := catalog.Lookup("postgres")
	given := map[string]Env{}
	for _, v := range postgres.Env {
		value, secret := r.value(postgres, v)
		given[v.Name] = r.variable(v.Name, value, secret)
	}
	r.password = given["POSTGRES_PASSWORD"]
	database := url.URL{
		Scheme: "postgresql", User: url.UserPassword(given["POSTGRES_USER"].Value, r.password.Value),
		Host: postgres.Address(), Path: "/" + given["POSTGRES_DB"].Value,
	}
	server, _ := catalog.Lookup("redis")
	redis := url.URL{Scheme: "redis", Host: server.Address(), Path: "/0"}
	if password := r.set.Variables["REDIS_PASSWORD"].Text; password != "" {
		redis.User = url.UserPassword("", password)
	}
	public := "https://" + settings.PublicHost
	if https := httpsPort + r.set.PortOffset; https != httpsPort {
		public += ":" + strconv.Itoa(https)
	}
	r.facts = map[string]string{
		"stack":         r.set.Stack,
		"secured":       strconv.FormatBool(secured),
		"docker_root":   r.set.DockerRoot,
		"database_url":  database.String(),
		"redis_url":     redis.String(),
		"nginx_address": r.set.NginxAddress.String(),
		"nginx_subnet":  r.set.Subnet.String(),
		"public_url":    public,
	}
	if r.set.OnSwarm() { // which gives no service a fixed address
		r.facts["nginx_address"] = r.set.Subnet.String()
	}
}

func (r *resolver) networks() {
	for _, n := range catalog.Networks {
		network := Network{Key: n.Name, Name: r.name(n.Name)}
		if n.Fixed {
			network.Subnet = r.set.Subnet.String()
		}
		r.plan.Networks = append(r.plan.Networks, network)
	}
}

func (r *resolver) volumes() {
	for _, key := range catalog.Volumes {
		existing := r.set.Volumes[key]
		r.plan.Volumes = append(r.plan.Volumes, Volume{Key: key, Name: cmp.Or(existing, r.name(key)), TakeOver: existing != ""})
	}
	if !r.set.RetainVolumes {
		r.plan.Notes = append(r.plan.Notes, "retainVolumes is off: `pulumi destroy` deletes the data of all volumes")
	}
}

func (r *resolver) name(of string) string { return r.set.NamePrefix + "_" + of }

// enabled returns the catalog's services that this stack runs, without dependencies on services that it does not run.
func (r *resolver) enabled() []catalog.Service {
	var on []catalog.Service
	for _, s := range catalog.Services() {
		switch {
		case s.Profile != "" && !slices.Contains(r.set.Profiles, s.Profile):
		case slices.Contains(r.set.Disabled, s.Name):
			r.plan.Notes = append(r.plan.Notes, s.Name+" is disabled")
		default:
			on = append(on, s)
		}
	}
	has := func(name string) bool {
		return slices.ContainsFunc(on, func(o catalog.Service) bool { return o.Name == name })
	}
	for i, s := range on {
		on[i].After = nil
		for _, name := range s.After {
			switch {
			case has(name):
				on[i].After = append(on[i].After, name)
			case slices.Contains(s.Needs, name):
				r.faults.Add(settings.Project+":disabled", "remove "+name+" from `disabled`, or add "+s.Name+" to it",
					"%s is disabled, and %s cannot run without it", name, s.Name)
			default:
				r.plan.Notes = append(r.plan.Notes, fmt.Sprintf("%s does not wait for %s, which is not in the stack", s.Name, name))
			}
		}
	}
	return on
}

func (r *resolver) service(s catalog.Service) Service {
	out := Service{
		Name: s.Name, Tier: s.Tier, Profile: s.Profile, Local: s.Line > 0, Once: s.Once, Image: r.image(s),
		Command: s.Command, User: s.User, After: s.After, Health: s.Health(),
		Grace: Duration{s.Grace}, Capabilities: s.Capabilities, ReadOnly: s.ReadOnly, Tmpfs: s.Tmpfs, Init: s.Init, DNSOptions: s.DNSOptions,
	}
	if s.Clients.Max > 0 {
		out.CPUShares = serverShares
	}
	if r.scraped(s) {
		out.Metrics = s.MetricsURL()
	}
	command := slices.Clone(s.Probe.Command)
	for i, word := range command {
		command[i] = r.expand(s, word)
	}
	if r.reference[s.Name] {
		out.Command, out.Capabilities = []string{"serve"}, nil
		command = []string{"CMD", "/app/reference", "probe"}
	}
	if s.Once && r.reference[s.Name] {
		out.Command = []string{"once"}
	}
	api := r.set.EngineAPI
	if r.set.OnSwarm() {
		api = settings.Version{} // its services have no start interval
	}
	if s.Once || len(command) == 0 { // Check has reported a service without a probe
		out.Probe = Probe{StartPeriod: Duration{cmp.Or(s.Probe.Start, 10*time.Minute)}}
	} else {
		out.Probe = newProbe(command, s.Probe, api)
	}
	for replica := range max(1, r.set.Replicas[s.Name]) {
		name := r.name(s.Name)
		if replica > 0 {
			// The first replica has no suffix, so that scaling never replaces it.
			name = fmt.Sprintf("%s_%d", name, replica+1)
		}
		out.Containers = append(out.Containers, name)
	}
	out.Env = r.env(s)
	out.Memory = r.memory(s, out.Value(s.Jobs))
	out.Ports = r.ports(s, out.Value)
	for _, m := range s.Mounts {
		switch {
		case m.Checkout == "":
			out.Mounts = append(out.Mounts, Mount{Volume: m.Volume, Host: r.expand(s, m.Host), Path: m.Path, ReadOnly: m.ReadOnly})
		case r.set.SourceDir != "":
			out.Mounts = append(out.Mounts, Mount{Host: r.set.SourceDir + "/" + m.Checkout, Path: m.Path, ReadOnly: m.ReadOnly, Create: m.Create})
		}
	}
	for _, network := range s.Networks {
		a := Attachment{Network: network, Alias: s.Name}
		if s.Proxy && network == catalog.EdgeNetwork && !r.set.OnSwarm() {
			a.Address = r.set.NginxAddress.String()
		}
		out.Networks = append(out.Networks, a)
	}
	return out
}

// memory returns a service's limit in MB. jobs is the number of bytes that its jobs may use, empty for none.
func (r *resolver) memory(s catalog.Service, jobs string) int {
	if own, ok := r.set.Memory[s.Name]; ok {
		return own
	}
	bytes, err := strconv.ParseInt(jobs, 10, 64)
	if err != nil || bytes < 0 {
		return s.Memory // the service itself reports an invalid value
	}
	return min(s.Memory+int(bytes>>20), settings.MaxMemory)
}

func (r *resolver) ports(s catalog.Service, value func(variable string) string) []Port {
	var ports []Port
	for _, p := range s.Ports {
		if p.When != "" && value(p.When) == "" {
			continue
		}
		address := r.set.BindAddress
		switch {
		case r.set.OnSwarm() && (address.IsLoopback() || !p.Login && !slices.Contains(r.set.Expose, s.Name)):
			continue // a Swarm would publish it on every address of the node
		case p.Login || address.IsLoopback():
		case !slices.Contains(r.set.Expose, s.Name):
			address = loopback[netip.IPv4Unspecified()]
		case p.Guard == "":
			r.plan.Open = append(r.plan.Open, fmt.Sprintf("%s is open without a login to whoever reaches %s", s.Name, address))
		case value(p.Guard) == "":
			r.faults.Add(settings.Project+":expose", settings.SetSecretCommand(r.set.Stack, p.Guard)+", or remove "+s.Name+" from expose",
				"%s has no password in this stack, so it cannot be exposed on %s", s.Name, address)
		default:
			r.plan.Open = append(r.plan.Open, fmt.Sprintf("%s is open to whoever reaches %s and knows %s", s.Name, address, p.Guard))
		}
		for i := range max(1, p.Count) {
			host := p.Host + i + r.set.PortOffset
			if host > 65535 {
				r.faults.Add(settings.Project+":portOffset", settings.SetCommand(r.set.Stack, "portOffset", "1000"),
					"%d puts %s on port %d, which is above 65535", r.set.PortOffset, s.Name, host)
				break
			}
			port := Port{Address: address.String(), Host: host, Container: p.Container + i}
			if p.URL != "" {
				port.URL = p.URL + "://" + netip.AddrPortFrom(cmp.Or(loopback[address], address), uint16(host)).String() //nolint:gosec // at most 65535
			}
			ports = append(ports, port)
		}
	}
	return ports
}

// expand replaces the facts in a value of a service.
func (r *resolver) expand(s catalog.Service, value string) string {
	return catalog.Expand(s.Fill(value), func(fact, service string) string {
		if fact == "origins" {
			return r.origins(service)
		}
		return r.facts[fact]
	})
}

// origins returns the origins under which a browser on this host reaches a service, separated by a comma.
func (r *resolver) origins(service string) string {
	s, _ := catalog.Lookup(service)
	for _, p := range s.Ports {
		if p.URL != "" {
			port := strconv.Itoa(p.Host + r.set.PortOffset)
			return p.URL + "://localhost:" + port + "," + p.URL + "://127.0.0.1:" + port
		}
	}
	return ""
}

// env returns a service's variables in the order of the catalog, and after them those
// that serviceEnv adds, sorted by name. Variables without a value are set to an empty
// value, as in the Compose file.
func (r *resolver) env(s catalog.Service) []Env {
	var env []Env
	for _, v := range s.Env {
		value, given := r.value(s, v)
		override, overridden := r.set.ServiceEnv[s.Name][v.Name]
		if overridden {
			value, given = override.Text, override.Secret
		}
		switch {
		case v.Required && value == "":
			r.lack(s, v, false)
		case r.reachable != "" && catalog.IsLocalOnly(v.Name, value):
			r.lack(s, v, true)
		}
		env = append(env, r.variable(v.Name, value, given))
	}
	for _, name := range slices.Sorted(maps.Keys(r.set.ServiceEnv[s.Name])) {
		if !slices.ContainsFunc(env, func(e Env) bool { return e.Name == name }) {
			v := r.set.ServiceEnv[s.Name][name]
			env = append(env, r.variable(name, v.Text, v.Secret))
		}
	}
	return env
}

// value returns a variable's value, and whether the user set it as a secret.
func (r *resolver) value(s catalog.Service, v catalog.Variable) (string, bool) {
	for _, name := range v.From {
		if user, ok := r.set.Variables[name]; ok && user.Text != "" {
			return user.Text, user.Secret
		}
	}
	return r.expand(s, v.Value), false
}

// variable decides whether a value is a secret. Public defaults are not, neither alone
// nor in the database's URL: one secret in a list makes Pulumi hide the whole list.
func (r *resolver) variable(name, value string, given bool) Env {
	secret := given || value != "" && catalog.IsSecret(name, value)
	switch {
	case catalog.IsLocalOnly(name, value):
		secret = given
	case value == r.facts["database_url"]:
		secret = r.password.Secret
	}
	return Env{Name: name, Value: value, Secret: secret}
}

// files renders each service's configuration files and adds its certificates. The
// services have the same order as those of the plan.
func (r *resolver) files(services []catalog.Service) {
	values := infra.Values{NamePrefix: r.set.NamePrefix, URLs: map[string]string{}, Replicas: map[string]int{}}
	for i, s := range services {
		if s.Port != 0 {
			values.URLs[s.Name] = s.URL()
		}
		if out := r.plan.Services[i]; out.Metrics != "" {
			values.Replicas[s.Name] = len(out.Containers)
		}
	}
	// Not only those of this stack: what Prometheus is told must not change with the profiles, which would replace it. It
	// finds those that are there by their names.
	for _, s := range catalog.Services() {
		if r.scraped(s) {
			values.Targets = append(values.Targets, infra.Target{
				Service: s.Name, Port: s.MetricsPort(), Path: cmp.Or(s.Metrics.Path, "/metrics"),
				Tier: string(s.Tier), Component: s.Metrics.Component, Interval: s.Metrics.Interval, Replicas: s.Scalable,
			})
		}
	}
	for i, s := range services {
		out := &r.plan.Services[i]
		if s.Files != "" {
			values.Service, values.Nginx = s.Name, r.nginx(s, out)
			files, err := infra.Files(s.Files, values)
			if err != nil {
				r.faults.Add(s.Name, "correct the files in infra/files/"+s.Files, "its configuration files cannot be rendered: %v", err)
			}
			for _, path := range slices.Sorted(maps.Keys(files)) {
				out.Files = append(out.Files, File{Path: path, Content: files[path]})
			}
		}
		for _, name := range s.Certs {
			out.Files = append(out.Files, File{Path: "/etc/nginx/certs/" + name, Content: r.certs[name], Secret: true, Private: strings.HasSuffix(name, ".key")})
		}
	}
}

// scraped reports whether Prometheus scrapes a service wherever it runs.
func (r *resolver) scraped(s catalog.Service) bool {
	return s.Metrics.Component != "" && (!s.Metrics.Reference || r.set.Images[s.Name] == "" && r.set.SourceDir == "")
}

// nginx returns the template data of a proxy.
func (r *resolver) nginx(s catalog.Service, out *Service) infra.Nginx {
	if !s.Proxy {
		return infra.Nginx{}
	}
	n := infra.Nginx{
		Upstreams:   map[string]string{},
		ClientCerts: slices.ContainsFunc(catalog.Profiles, func(p catalog.Profile) bool { return p.Name == s.Profile && p.ClientCerts }),
		HTTPSPort:   httpsPort + r.set.PortOffset, CSPReportOnly: out.Value("CSP_REPORT_ONLY") == "true",
		ServerNames: r.set.ServerNames(),
		Gateway:     r.set.Subnet.Addr().Next(), // the engine's default
	}
	for _, name := range s.Needs {
		upstream, _ := catalog.Lookup(name)
		n.Upstreams[upstream.App] = upstream.Address()
	}
	const trusted = "TRUSTED_PROXY_SUBNET"
	if subnet := out.Value(trusted); subnet != "" {
		var err error
		if n.TrustedProxies, err = netip.ParsePrefix(subnet); err != nil {
			r.faults.Add(settings.Project+":"+trusted, settings.SetCommand(r.set.Stack, trusted, "172.28.0.0/24"),
				"%q is not a subnet of proxies that %s can trust", subnet, s.Name)
		}
	}
	return n
}

// lack notes that a service must have another value of a variable.
func (r *resolver) lack(s catalog.Service, v catalog.Variable, public bool) {
	i := slices.IndexFunc(r.lacks, func(l *lack) bool { return l.Name == v.Name && l.public == public })
	if i < 0 {
		i, r.lacks = len(r.lacks), append(r.lacks, &lack{Variable: v, public: public})
	}
	r.lacks[i].services = append(r.lacks[i].services, s.Name)
}

// reportLacks adds one fault for each variable and reason.
func (r *resolver) reportLacks() {
	slices.SortStableFunc(r.lacks, func(a, b *lack) int { return cmp.Compare(a.Name, b.Name) })
	for _, l := range r.lacks {
		services := strings.Join(l.services, ", ")
		what := "required by " + services + ", but not set"
		if l.public {
			what = services + " would run with its public default, and " + r.reachable
		}
		fix := settings.SetCommand(r.set.Stack, l.Name, "<value>")
		if catalog.IsSecret(l.Name, "") {
			fix = settings.SetSecretCommand(r.set.Stack, l.Name)
		}
		if len(l.From) == 0 { // a fixed variable, as those of the dev console
			fix = settings.SetCommand(r.set.Stack, "--secret --path serviceEnv."+l.services[0]+"."+l.Name, "")
		} else {
			r.plan.Unset = append(r.plan.Unset, l.Variable)
			if !l.Ask {
				fix = "platform init -s " + r.set.Stack + " generates one, or: " + fix
			}
		}
		r.faults.Add(settings.Project+":"+l.Name, fix, "%s", what)
	}
}
