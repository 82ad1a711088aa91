// Package compose writes a resolved stack as a Compose file.
package compose

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"trading-platform/plan"
)

// Write writes a plan as a Compose file with one service for each container. The file contains no
// secret: it takes a secret variable from the environment variable of the same name, which
// <SERVICE>_<VARIABLE> overrides for one service, and the content of a secret file from
// <SERVICE>_<PATH>. Compose refuses to start if one of them is not set.
//
// Relative build contexts refer to the project's root.
func Write(p *plan.Plan, w io.Writer) error {
	text, needed, err := render(p)
	if err != nil {
		return err
	}
	if _, err := load(text, needed); err != nil {
		return fmt.Errorf("the Compose file of stack %s: %w", p.Stack, err)
	}
	_, err = w.Write(text)
	return err
}

// load reads a Compose file, and refuses what Compose's schema does not allow. Paths remain relative.
func load(text []byte, environment map[string]string) (*types.Project, error) {
	return loader.LoadWithContext(context.Background(), types.ConfigDetails{
		ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml", Content: text}}, Environment: environment,
	}, func(o *loader.Options) { o.ResolvePaths = false })
}

// export is a Compose file in the making.
type export struct {
	plan    *plan.Plan
	project *types.Project
	needed  map[string]string // the environment variables that the file cannot do without, each with a placeholder
	secrets []string          // the references to them
}

// render returns the file, and the environment variables that it needs.
func render(p *plan.Plan) ([]byte, map[string]string, error) {
	e := &export{plan: p, needed: map[string]string{}, project: &types.Project{
		Name:     loader.NormalizeProjectName(p.NamePrefix),
		Services: types.Services{}, Networks: types.Networks{}, Volumes: types.Volumes{},
		Configs: types.Configs{}, Secrets: types.Secrets{},
	}}
	for _, n := range p.Networks {
		network := types.NetworkConfig{Name: n.Name, Driver: "bridge", Labels: own(p.OwnLabels())}
		if n.Subnet != "" {
			network.Ipam.Config = []*types.IPAMPool{{Subnet: n.Subnet}}
		}
		e.project.Networks[n.Key] = network
	}
	for _, v := range p.Volumes {
		volume := types.VolumeConfig{Name: v.Name, External: types.External(v.TakeOver)}
		if !v.TakeOver {
			volume.Labels = own(p.VolumeLabels(v))
		}
		e.project.Volumes[v.Key] = volume
	}
	for _, s := range p.Services {
		for i, container := range s.Containers {
			e.project.Services[e.key(container)] = e.service(s, i)
		}
	}
	text, err := e.project.MarshalYAML()
	// Compose replaces $NAME in every value, so each literal $ is doubled.
	out := strings.ReplaceAll(string(text), "$", "$$")
	for _, reference := range e.secrets {
		out = strings.ReplaceAll(out, strings.ReplaceAll(reference, "$", "$$"), reference)
	}
	return []byte(out), e.needed, err
}

// key returns the Compose service of a container: the name of its service, with a suffix for a further replica.
func (e *export) key(container string) string {
	return strings.TrimPrefix(container, e.plan.NamePrefix+"_")
}

// service returns the i-th replica of a service.
func (e *export) service(s plan.Service, i int) types.ServiceConfig {
	out := types.ServiceConfig{ContainerName: s.Containers[i], Restart: s.Restart()}
	out.Image, out.Build = s.Image.Key(), build(s.Image.Build)
	out.Command, out.User = s.Command, s.User
	out.Environment = types.MappingWithEquals{}
	out.Networks = map[string]*types.ServiceNetworkConfig{}
	out.DependsOn = types.DependsOnConfig{}
	out.HealthCheck = probe(s.Probe)
	out.StopGracePeriod = duration(s.Grace)
	out.SecurityOpt = plan.SecurityOptions
	out.CapDrop, out.CapAdd = plan.DroppedCapabilities, s.Capabilities
	out.MemLimit, out.CPUShares = types.UnitBytes(s.Memory)<<20, int64(s.CPUShares)
	out.MemSwapLimit = out.MemLimit
	out.ReadOnly, out.Tmpfs, out.DNSOpts = s.ReadOnly, s.Tmpfs, s.DNSOptions
	out.Logging = &types.LoggingConfig{Driver: plan.LogDriver, Options: plan.LogOptions}
	out.Labels = own(s.Labels(e.plan, i))
	if s.Init {
		out.Init = &s.Init
	}
	for _, v := range s.Env {
		value := v.Value
		if v.Secret {
			value = e.secret(s, v.Name)
		}
		out.Environment[v.Name] = &value
	}
	for _, p := range s.Ports {
		out.Ports = append(out.Ports, types.ServicePortConfig{
			HostIP: p.Address, Published: strconv.Itoa(p.Host), Target: uint32(p.Container), Protocol: "tcp", //nolint:gosec // a port
		})
	}
	for _, m := range s.Mounts {
		mount := types.ServiceVolumeConfig{Type: types.VolumeTypeVolume, Source: m.Volume, Target: m.Path, ReadOnly: m.ReadOnly}
		if m.Volume == "" {
			mount.Type, mount.Source = types.VolumeTypeBind, m.Host
			mount.Bind = &types.ServiceVolumeBind{CreateHostPath: types.OptOut(m.Create)}
		}
		out.Volumes = append(out.Volumes, mount)
	}
	for _, f := range s.Files {
		e.file(&out, s, f)
	}
	for i, a := range s.Networks {
		out.Networks[a.Network] = &types.ServiceNetworkConfig{
			Aliases: []string{a.Alias}, Ipv4Address: a.Address,
			Priority: len(s.Networks) - i, // Compose connects them in this order
		}
	}
	for _, name := range s.After {
		after, _ := e.plan.Lookup(name)
		condition := after.Condition()
		if len(after.Probe.Test) == 0 && !after.Once { // only in a benchmark: every service of the catalog has a probe
			condition = types.ServiceConditionStarted
		}
		for _, container := range after.Containers {
			out.DependsOn[e.key(container)] = types.ServiceDependency{Condition: condition, Required: true}
		}
	}
	return out
}

// secret returns the reference in the place of a secret variable's value.
func (e *export) secret(s plan.Service, name string) string {
	own := environmentName(s.Name + "_" + name)
	reference := fmt.Sprintf("${%s-${%s?a secret of %s is not set}}", own, name, s.Name)
	e.needed[name] = "x"
	e.secrets = append(e.secrets, reference)
	return reference
}

// file puts a file into a service: a config with its content, or a secret from the environment.
func (e *export) file(out *types.ServiceConfig, s plan.Service, f plan.File) {
	mode := types.FileMode(0o644)
	if f.Private {
		mode = 0o600
	}
	name := s.Name + notInKey.ReplaceAllString(f.Path, "-")
	reference := types.FileReferenceConfig{Source: name, Target: f.Path, Mode: &mode}
	if f.Secret {
		from := environmentName(name)
		e.needed[from] = "x"
		e.project.Secrets[name] = types.SecretConfig{Environment: from}
		out.Secrets = append(out.Secrets, types.ServiceSecretConfig(reference))
		return
	}
	e.project.Configs[name] = types.ConfigObjConfig{Content: f.Content}
	out.Configs = append(out.Configs, types.ServiceConfigObjConfig(reference))
}

// The characters that the name of a config, or of a variable, cannot have.
var (
	notInKey         = regexp.MustCompile(`[^a-zA-Z0-9._-]+`)
	notInEnvironment = regexp.MustCompile(`[^A-Z0-9_]`)
)

func environmentName(name string) string {
	return notInEnvironment.ReplaceAllString(strings.ToUpper(name), "_")
}

func probe(p plan.Probe) *types.HealthCheckConfig {
	if len(p.Test) == 0 {
		return nil
	}
	return &types.HealthCheckConfig{
		Test: p.Test, Interval: duration(p.Interval), Timeout: duration(p.Timeout), Retries: new(uint64(p.Retries)), //nolint:gosec // not negative
		StartPeriod: duration(p.StartPeriod), StartInterval: duration(p.StartInterval),
	}
}

// build returns a build whose additional contexts are folders of its own context.
func build(b *plan.Build) *types.BuildConfig {
	if b == nil {
		return nil
	}
	out := &types.BuildConfig{Context: b.Context, Dockerfile: b.Dockerfile, Args: types.MappingWithEquals{}, AdditionalContexts: types.Mapping{}}
	if inside, err := filepath.Rel(b.Context, b.Dockerfile); err == nil { // Compose looks for it there
		out.Dockerfile = filepath.ToSlash(inside)
	}
	for name, value := range b.Args {
		out.Args[name] = &value
	}
	for _, c := range b.Contexts {
		out.AdditionalContexts[strings.TrimSuffix(c.Name, ":latest")] = filepath.ToSlash(filepath.Join(c.Context, c.Args[plan.FolderArg]))
	}
	return out
}

func duration(d plan.Duration) *types.Duration {
	if d.Duration == 0 {
		return nil
	}
	return new(types.Duration(d.Duration))
}

// own returns labels without those of Compose, which sets them itself.
func own(labels map[string]string) types.Labels {
	maps.DeleteFunc(labels, func(name, _ string) bool { return strings.HasPrefix(name, "com.docker.compose.") })
	return labels
}
