package workspace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"trading-platform/plan"
	"trading-platform/settings"
	"trading-platform/stack"
)

// HandOver stops the container of an app, and has its name lead to this host, where the user runs the app; or, if back is true, undoes
// that. If the up fails, the setting is as before.
func (w *Workspace) HandOver(ctx context.Context, name, app string, back bool, say func(string)) error {
	_, set, err := w.Resolve(name)
	if set == nil {
		return err
	}
	apps := slices.DeleteFunc(slices.Clone(set.HandOver), func(other string) bool { return other == app })
	if !back {
		apps = append(apps, app)
	}
	if err := w.SetConfig(name, "handOver", apps); err != nil {
		return err
	}
	if err := w.Run(ctx, "up", name, nil, say); err != nil {
		return errors.Join(err, w.SetConfig(name, "handOver", set.HandOver))
	}
	return nil
}

// OnHost returns what an app needs that runs on this host, with the values of its secrets.
func (w *Workspace) OnHost(ctx context.Context, name, app string) (*plan.Host, error) {
	src, err := w.Source(name)
	if err != nil {
		return nil, err
	}
	text, err := w.output(ctx, w.pulumiArgs(name, []string{"config", "--show-secrets", "--json", "-s", name})...)
	if err != nil {
		return nil, err
	}
	var config map[string]struct {
		Value  string
		Secret bool
	}
	if err := json.Unmarshal(text, &config); err != nil {
		return nil, err
	}
	for key, one := range config {
		if name, own := strings.CutPrefix(key, settings.Project+":"); own && one.Secret {
			src.Config[name] = one.Value
		}
	}
	p, _, err := stack.Resolve(src)
	if p == nil {
		return nil, err
	}
	s, _ := p.Lookup(app)
	if s.Host == nil {
		return nil, fmt.Errorf("%s does not run on this host", app)
	}
	return s.Host, nil
}

// WriteEnv writes an app's variables into a dotenv file that only its owner can read.
func WriteEnv(path, text string) error { return writeFile(path, []byte(text)) }
