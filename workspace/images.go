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

// airgapPrefix begins every reference to an image that airgap makes.
const airgapPrefix = "trading-platform-airgap/"

// registryAnswers asks, through the engine, for an image that every stack wants. A
// registry that refuses has answered: too many pulls today are no reason to run
// on other images for good.
func registryAnswers(ctx context.Context, engine *client.Client) bool {
	postgres, _ := catalog.Lookup("postgres")
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	_, err := engine.DistributionInspect(ctx, postgres.Image, client.DistributionInspectOptions{})
	return err == nil || cerrdefs.IsUnauthorized(err) || cerrdefs.IsPermissionDenied(err) || cerrdefs.IsNotFound(err) ||
		strings.Contains(err.Error(), "toomanyrequests")
}

// airgapped tells whether the stack runs on air-gap images. That is settled when
// the stack is made: it must not flip because a registry was down for a minute.
func (f stackFile) airgapped() bool {
	images, _ := f.get("images").(map[string]any)
	for _, reference := range images {
		if text, ok := reference.(string); ok && strings.HasPrefix(text, airgapPrefix) {
			return true
		}
	}
	return false
}

// useAirgap points the stack at the air-gap images, and leaves out the services
// that have none. An image that the user chose stays.
func (w *Workspace) useAirgap(stack string, f stackFile, say func(string)) error {
	references, err := airgap.References(w.Root)
	if err != nil {
		return err
	}
	if !f.airgapped() {
		rm := "pulumi config rm -s " + stack
		say("images: air-gap, because the engine reaches no registry (to take a registry's later: " + rm + " images && " + rm + " disabled)")
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
			say(s.Name + " is disabled: its image can only be had from a registry")
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

// imageKey is the name by which airgap knows a service's image.
func imageKey(s catalog.Service) string {
	switch {
	case s.App != "":
		return settings.Reference
	case s.Tier == catalog.Proxy:
		return "nginx"
	}
	return s.Name
}

// plan resolves a stack from its own file, as far as that goes: what is wrong with
// it is for the program to say. It is nil where nothing can be resolved.
func (w *Workspace) plan(name string) (*plan.Plan, error) {
	src, err := w.Source(name)
	if err != nil {
		return nil, err
	}
	p, _, _ := stack.Resolve(src)
	return p, nil
}

// Source reads a stack's config as the program would get it.
func (w *Workspace) Source(name string) (settings.Source, error) {
	src, err := settings.FromFiles(name, w.Root, w.ConfigFile(name))
	if err == nil && src.Config["identity"] == "" {
		src.Config["identity"] = stack.DefaultIdentity(w.Backend, "organization", name)
	}
	return src, err
}

// makeImages makes the air-gap images that the stack's services run.
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
