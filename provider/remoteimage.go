package provider

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"

	engines "trading-platform/engine"
)

// remoteImageArgs are docker.RemoteImage's inputs. An id is the image's id.
type remoteImageArgs struct {
	Name         string   `json:"name"         rule:"required"`
	KeepLocally  bool     `json:"keepLocally"  rule:"update"`
	Platform     string   `json:"platform"`
	PullTriggers []string `json:"pullTriggers" rule:"set"`
}

type remoteImageType struct{}

func (remoteImageType) computed() []resource.PropertyKey {
	return []resource.PropertyKey{"imageId", "repoDigest"}
}

// coexists: a new image is there before the containers of the old one go, so that a
// pull that fails stops nothing.
func (remoteImageType) coexists() bool { return true }

func (remoteImageType) validate(args remoteImageArgs) []plugin.CheckFailure {
	if _, err := reference.ParseAnyReference(args.Name); err != nil {
		return []plugin.CheckFailure{{Property: "name", Reason: fmt.Sprintf("name %q: %v", args.Name, err)}}
	}
	if _, err := parsePlatform(args.Platform); err != nil {
		return []plugin.CheckFailure{{Property: "platform", Reason: err.Error()}}
	}
	return nil
}

// parsePlatform reads os/architecture[/variant]; "" is the engine's own.
func parsePlatform(text string) ([]ocispec.Platform, error) {
	if text == "" {
		return nil, nil
	}
	parts := strings.Split(text, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return nil, fmt.Errorf("platform %q must be os/architecture[/variant], such as linux/amd64", text)
	}
	platform := ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		platform.Variant = parts[2]
	}
	return []ocispec.Platform{platform}, nil
}

// create looks for the image on the engine before it asks a registry, so that a stack
// whose images are there comes up with no network.
func (t remoteImageType) create(ctx context.Context, c call, args remoteImageArgs) (resource.ID, outputs, error) {
	out, err := t.find(ctx, c, args)
	if err == nil && out == nil {
		if err = pull(ctx, c, args); err == nil {
			out, err = t.find(ctx, c, args)
		}
	}
	if err != nil {
		return "", nil, err
	}
	if out == nil {
		return "", nil, fmt.Errorf("image %s is not on the engine after its pull: something removes images there", args.Name)
	}
	return resource.ID(out["imageId"].StringValue()), out, nil
}

// find gives nil where the engine has no such image.
func (remoteImageType) find(ctx context.Context, c call, args remoteImageArgs) (outputs, error) {
	found, err := c.engine.ImageInspect(ctx, args.Name)
	if cerrdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", args.Name, err)
	}
	digest := found.ID
	if len(found.RepoDigests) > 0 {
		digest = found.RepoDigests[0]
	}
	return outputs{"imageId": resource.NewProperty(found.ID), "repoDigest": resource.NewProperty(digest)}, nil
}

func pull(ctx context.Context, c call, args remoteImageArgs) error {
	fail := func(err error) error {
		registry := engines.Registry(args.Name)
		fix := engines.PullFix(args.Name, err.Error())
		if !c.run.first(registry + fix) {
			return fmt.Errorf("image %s could not be pulled from %s for the same cause", args.Name, registry)
		}
		return fmt.Errorf("image %s could not be pulled from %s: %w\nFix: %s", args.Name, registry, err, fix)
	}
	platforms, err := parsePlatform(args.Platform)
	if err != nil {
		return fail(err)
	}
	login, err := registryAuth(args.Name)
	if err != nil {
		return fail(err)
	}
	c.progress.status("pulling %s", args.Name)
	stream, err := c.engine.ImagePull(ctx, args.Name, client.ImagePullOptions{Platforms: platforms, RegistryAuth: login})
	if err != nil {
		return fail(err)
	}
	defer func() { _ = stream.Close() }()
	var shown time.Time
	layers := map[string][2]int64{}
	for message, err := range stream.JSONMessages(ctx) {
		if err != nil {
			return fail(err)
		}
		if message.Error != nil {
			return fail(message.Error)
		}
		if message.Progress != nil && message.Status == "Downloading" {
			layers[message.ID] = [2]int64{message.Progress.Current, message.Progress.Total}
		}
		if time.Since(shown) < time.Second {
			continue
		}
		shown = time.Now()
		var current, total int64
		for _, layer := range layers {
			current, total = current+layer[0], total+layer[1]
		}
		c.progress.status("pulling %s: %s, %d of %d MB", args.Name, strings.ToLower(message.Status), current>>20, total>>20)
	}
	return nil
}

// read follows the name: an image that was tagged anew shows as a new imageId.
func (t remoteImageType) read(ctx context.Context, c call, args remoteImageArgs) (outputs, error) {
	return t.find(ctx, c, args)
}

// update keeps the outputs: keepLocally matters to a delete only.
func (remoteImageType) update(_ context.Context, c call, _ remoteImageArgs) (outputs, error) {
	return outputs{"imageId": c.recorded["imageId"], "repoDigest": c.recorded["repoDigest"]}, nil
}

// remove leaves an image that a container still uses: it may be another stack's too.
func (remoteImageType) remove(ctx context.Context, c call, args remoteImageArgs) error {
	if args.KeepLocally {
		return nil
	}
	_, err := c.engine.ImageRemove(ctx, args.Name, client.ImageRemoveOptions{})
	if err == nil || cerrdefs.IsNotFound(err) || cerrdefs.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("image %s: %w", args.Name, err)
}
