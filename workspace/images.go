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
	src, err := w.Source(name)
	if err != nil {
		return nil, err
	}
	p, _, _ := stack.Resolve(src)
	return p, nil
}

// Source reads a stack's config as the Pulumi program would receive it.
func (w *Workspace) Source(name string) (settings.Source, error) {
	src, err := settings.FromFiles(name, w.Root, w.ConfigFile(name))
	if err == nil && src.Config["identity"] == "" {
		src.Config["identity"] = stack.DefaultIdentity(w.Backend, "organization", name)
	}
	return src, err
}

// makeImages builds the air-gap images that the stack's services use.
func (w *Workspace) makeImages(ctx context.Context, engine *client.Client, name string, say func(string)) error {
	p, err := w.plan(name)
	if err != nil || p == nil {
		return err
	}
	var wanted []string
	for _, s := range p.Services {
		c, _ := catalog.Lookup(s.Name)
		if key := imageKey(c); strings.HasPrefix(s.Image.Reference, airgapPrefix) && !slices.Contains(wanted, key) {
			wanted = append(wanted, key)
		}
	}
	return airgap.Build(ctx, engine, w.Root, wanted, say)
}
