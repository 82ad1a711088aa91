package workspace

import (
	"context"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"trading-platform/airgap"
	"trading-platform/catalog"
	"trading-platform/plan"
	"trading-platform/settings"
	"trading-platform/stack"
)

// airgapPrefix is the prefix of every image that package airgap builds.
const airgapPrefix = "trading-platform-airgap/"

// registryAnswers asks the registry, through the engine, for an image that every stack
// needs. A refusal counts as an answer: a rate limit is temporary, and no reason to use
// air-gap images from then on.
func registryAnswers(ctx context.Context, engine *client.Client) bool {
	postgres, _ := catalog.Lookup("postgres")
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	_, err := engine.DistributionInspect(ctx, postgres.Image, client.DistributionInspectOptions{})
	return err == nil || cerrdefs.IsUnauthorized(err) || cerrdefs.IsPermissionDenied(err) || cerrdefs.IsNotFound(err) ||
		strings.Contains(err.Error(), "toomanyrequests")
}

// airgapped reports whether the stack uses air-gap images. This is decided once, when the
// stack is created, so that a short outage of a registry does not change it.
func (f stackFile) airgapped() bool {
	images, _ := f.get("images").(map[string]any)
	for _, reference := range images {
		if text, ok := reference.(string); ok && strings.HasPrefix(text, airgapPrefix) {
			return true
		}
	}
	return false
}

// useAirgap sets the stack's images to the air-gap images, and disables the services that
// have none. It keeps an image that the user has set.
func (w *Workspace) useAirgap(stack string, f stackFile, say func(string)) error {
	references, err := airgap.References(w.Root)
	if err != nil {
		return err
	}
	if !f.airgapped() {
		rm := "pulumi config rm -s " + stack
		say("images: air-gap, because the engine cannot reach a registry (to use a registry later: " + rm + " images && " + rm + " disabled)")
	}
	images, _ := f.get("images").(map[string]any)
	if images == nil {
		images = map[string]any{}
	}
	disabled, _ := f.get("disabled").([]any)
	for _, s := range catalog.Services() {
		key := imageKey(s)
		own, _ := images[s.Name].(string)
		switch {
		case own != "" && !strings.HasPrefix(own, airgapPrefix):
		case s.App != "":
		case references[key] != "":
			images[s.Name] = references[key]
		case !slices.Contains(disabled, any(s.Name)):
			say(s.Name + " is disabled: its image is available from a registry only")
			disabled = append(disabled, s.Name)
		}
	}
	if reference := references[settings.Reference]; reference != "" {
		images[settings.Reference] = reference
	}
	f.set("images", images)
	f.set("disabled", disabled)
	return nil
}

// imageKey returns the name of a service's image in package airgap.
func imageKey(s catalog.Service) string {
	switch {
	case s.App != "":
		return settings.Reference
	case s.Tier == catalog.Proxy:
		return "nginx"
	}
	return s.Name
}

// plan resolves a stack from its own file. It ignores faults, because the Pulumi program
// reports them. The plan is nil if the stack cannot be resolved at all.
func (w *Workspace) plan(name string) (*plan.Plan, error) {
	p, _, err := w.resolve(name)
	return p, err
}

// resolve is plan, with what is wrong with the settings.
func (w *Workspace) resolve(name string) (p *plan.Plan, wrong, err error) {
	src, err := w.Source(name)
	if err != nil {
		return nil, nil, err
	}
	p, _, wrong = stack.Resolve(src)
	return p, wrong, nil
}

// Source reads a stack's config as the Pulumi program would receive it.
func (w *Workspace) Source(name string) (settings.Source, error) {
	src, err := settings.FromFiles(name, w.Root, w.ConfigFile(name))
	if err == nil && src.Config["identity"] == "" {
		src.Config["identity"] = stack.DefaultIdentity(w.Backend, "organization", name)
	}
	return src, err
}

// prepareImages starts to make the slow parts of the air-gap images, on a machine that has neither a Pulumi nor a
// registry: while the CLI is built, downloads and the linker leave processors idle. stop ends it and waits. What goes
// wrong is left to makeImages, which does the rest.
func (r *run) prepareImages(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	r.ahead = done
	needed := r.Pulumi == ""
	if needed {
		file, err := r.load(r.stack)
		needed = err != nil || file.get("provider") == nil || file.airgapped()
	}
	go func() {
		defer close(done)
		if !needed || r.registry() {
			return
		}
		if names, err := r.airgapImages(func(string) bool { return true }); err == nil {
			_ = airgap.Prepare(ctx, r.Root, names, r.say)
		}
	}()
	return func() { cancel(); <-done }
}

// makeImages builds the air-gap images that the stack's services use.
func (r *run) makeImages(ctx context.Context) error {
	names, err := r.airgapImages(func(reference string) bool { return strings.HasPrefix(reference, airgapPrefix) })
	if err != nil {
		return err
	}
	return airgap.Build(ctx, r.engine, r.Root, names, r.say)
}

// airgapImages returns the names, in package airgap, of the images that the stack uses and whose references are wanted.
func (r *run) airgapImages(wanted func(reference string) bool) ([]string, error) {
	p, err := r.plan(r.stack)
	if err != nil || p == nil {
		return nil, err
	}
	var names []string
	for _, s := range p.Services {
		c, _ := catalog.Lookup(s.Name)
		if key := imageKey(c); wanted(s.Image.Reference) && !slices.Contains(names, key) {
			names = append(names, key)
		}
	}
	return names, nil
}
