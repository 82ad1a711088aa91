package preview

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"trading-platform/internal/certs"
	"trading-platform/internal/fault"
	"trading-platform/internal/stack"
	"trading-platform/internal/workspace"
	"trading-platform/plan"
	"trading-platform/settings"
)

// subnet is of a range that RFC 2544 keeps for tests of network equipment, so that
// no network of the engine is likely to have it. Nothing is made with it.
const subnet = "198.18.0.0/24"

// stackFile is the stack's config for this run.
func (r *rehearsal) stackFile(name string) string {
	return filepath.Join(r.dir, "project", "Pulumi."+name+".yaml")
}

// configure writes a stack's config: the tracked one, less what belongs to a
// machine or a person, under names, ports and a subnet that nothing else has.
func (r *rehearsal) configure(name string, taken offsets) error {
	text, err := os.ReadFile(filepath.Join(r.w.Root, "Pulumi."+name+".yaml"))
	if err != nil {
		return err
	}
	var tracked struct{ Config map[string]any }
	if err := yaml.Unmarshal(text, &tracked); err != nil {
		return err
	}
	config := map[string]any{}
	for key, value := range tracked.Config {
		if kept, ok := withoutSecrets(value); ok {
			config[key] = kept
		}
	}
	set := func(key string, value any) { config[settings.Project+":"+key] = value }
	for _, key := range []string{"envFile", "volumes", "nginxAddress"} {
		delete(config, settings.Project+":"+key)
	}
	set("namePrefix", "platform_preview_"+name)
	set("subnet", subnet)
	set("provider", r.provider)
	set("engineApi", r.api)
	set("ignoreCompose", r.compose)
	write := func() (*plan.Plan, *settings.Settings, error) {
		text, err := yaml.Marshal(map[string]any{"config": config})
		if err != nil {
			return nil, nil, err
		}
		if err := os.WriteFile(r.stackFile(name), text, 0o600); err != nil {
			return nil, nil, err
		}
		return r.resolve(name)
	}
	set("portOffset", 0)
	p, s, err := write()
	if err != nil {
		return err
	}
	offset, err := taken.find(p)
	if err != nil {
		return err
	}
	set("portOffset", offset)
	if s.SourceDir != "" {
		set("sourceDir", s.SourceDir) // relative ones start at the clone, not here
	}
	if stack.NeedsCerts(s) {
		dir := filepath.Join(r.dir, "certs", name)
		if _, err := certs.Ensure(dir, certs.Options{Stack: name, Names: s.ServerNames(), Clients: []string{"preview"}}); err != nil {
			return err
		}
		set("certsDir", dir)
	}
	_, _, err = write()
	return err
}

// resolve gives the stack's plan. What is wrong with it is for the program to say.
func (r *rehearsal) resolve(name string) (*plan.Plan, *settings.Settings, error) {
	src, err := settings.FromFiles(name, r.w.Root, r.stackFile(name))
	if err != nil {
		return nil, nil, err
	}
	p, s, err := stack.Resolve(src)
	if p == nil {
		return nil, nil, err
	}
	return p, s, nil
}

// withoutSecrets takes out what is encrypted for a key that is not here.
func withoutSecrets(value any) (kept any, ok bool) {
	m, isMap := value.(map[string]any)
	if !isMap {
		return value, true
	}
	if _, secret := m["secure"]; secret && len(m) == 1 {
		return nil, false
	}
	out := map[string]any{}
	for key, inner := range m {
		if kept, ok := withoutSecrets(inner); ok {
			out[key] = kept
		}
	}
	return out, true
}

// makeSecrets gives the stack a value for each variable that it needs one of.
func (r *rehearsal) makeSecrets(ctx context.Context, name string) (string, error) {
	p, _, err := r.resolve(name)
	if err != nil || len(p.Unset) == 0 {
		return "", err
	}
	args := []string{"config", "set-all", "-s", name}
	for _, variable := range p.Unset {
		args = append(args, "--secret", variable+"="+strings.TrimRight(workspace.Random(), "="))
	}
	return r.pulumi(ctx, args...)
}

// offsets are the port offsets that stacks of this run have.
type offsets map[int]bool

// find gives an offset at which nobody listens on any port of the plan, which has
// none. All ports stay below the range from which systems take outgoing ones.
func (o offsets) find(p *plan.Plan) (int, error) {
	// Odd steps, so that it does not meet stacks whose offsets are round numbers.
	for offset := 12137; offset < 23000; offset += 211 {
		if !o[offset] && free(p, offset) {
			o[offset] = true
			return offset, nil
		}
	}
	return 0, fault.List{{
		Where: "host ports",
		What:  "there is no portOffset from 12137 to 23000 at which all ports of the stack are free",
		Mend:  "sudo ss -ltnp tells who listens; stop what is not needed",
	}}
}

// free tells whether this host has every port of the plan to give, moved by offset.
func free(p *plan.Plan, offset int) bool {
	for _, s := range p.Services {
		for _, port := range s.Ports {
			l, err := net.Listen("tcp", net.JoinHostPort(port.Address, strconv.Itoa(port.Host+offset)))
			if err != nil {
				return false
			}
			_ = l.Close()
		}
	}
	return true
}
