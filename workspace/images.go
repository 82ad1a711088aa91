package workspace

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"trading-platform/airgap"
	"trading-platform/catalog"
	"trading-platform/settings"
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

// isAirgap reports whether a value is the reference of an image that package airgap builds.
func isAirgap(value any) bool {
	reference, _ := value.(string)
	return strings.HasPrefix(reference, airgapPrefix)
}

// airgapped reports whether the stack uses air-gap images. This is decided once, when the
// stack is created, so that a short outage of a registry does not change it.
func (f stackFile) airgapped() bool {
	images, _ := f.get("images").(map[string]any)
	return slices.ContainsFunc(slices.Collect(maps.Values(images)), isAirgap)
}

// useAirgap sets the stack's images to the air-gap images, and disables the services that
// have none. It keeps an image that the user has set.
func (r *run) useAirgap() error {
	references, err := airgap.References(r.Root)
	if err != nil {
		return err
	}
	if !r.file.airgapped() {
		rm := "pulumi config rm -s " + r.stack
		r.say("images: air-gap, because the engine cannot reach a registry (to use a registry later: " + rm + " images && " + rm + " disabled)")
	}
	images, _ := r.file.get("images").(map[string]any)
	if images == nil {
		images = map[string]any{}
	}
	disabled, _ := r.file.get("disabled").([]any)
	for _, s := range catalog.Services() {
		reference := references[imageKey(s)]
		switch own := images[s.Name]; {
		case s.App != "" || s.Tier == catalog.Local || own != nil && !isAirgap(own):
		case reference != "":
			images[s.Name] = reference
		case !slices.Contains(disabled, any(s.Name)):
			r.say(s.Name + " is disabled: its image is available from a registry only")
			disabled = append(disabled, s.Name)
		}
	}
	if reference, own := references[settings.Reference], images[settings.Reference]; reference != "" && (own == nil || isAirgap(own)) {
		images[settings.Reference] = reference
	}
	r.file.set("images", images)
	r.file.set("disabled", disabled)
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

// prepareImages starts to make the slow parts of the air-gap images on a machine without a registry: while the CLI is
// built, downloads and the linker leave processors idle. stop ends it and waits. What goes wrong is left to makeImages,
// which does the rest.
func (r *run) prepareImages(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	file, err := r.load(r.stack)
	if err != nil || file.get("provider") == nil || file.airgapped() {
		r.ahead.Go(func() {
			if !r.registry() {
				_ = airgap.Prepare(ctx, r.Root, r.airgapImages(func(any) bool { return true }), r.say)
			}
		})
	}
	return func() { cancel(); r.ahead.Wait() }
}

// airgapImages returns the names, in package airgap, of the images that the stack uses and whose references are wanted.
func (r *run) airgapImages(wanted func(reference any) bool) (names []string) {
	p, _, _ := r.Resolve(r.stack)
	if p == nil {
		return nil
	}
	for _, s := range p.Services {
		c, _ := catalog.Lookup(s.Name)
		if key := imageKey(c); c.Tier != catalog.Local && wanted(s.Image.Reference) && !slices.Contains(names, key) {
			names = append(names, key)
		}
	}
	return names
}
