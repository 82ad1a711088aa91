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
	"github.com/pulumi/pulumi-go-provider/infer"

	engines "trading-platform/engine"
)

// RemoteImageArgs are docker.RemoteImage's inputs.
type RemoteImageArgs struct {
	Name         string   `pulumi:"name" provider:"replaceOnChanges"`
	KeepLocally  bool     `pulumi:"keepLocally,optional"`
	Platform     string   `pulumi:"platform,optional" provider:"replaceOnChanges"`
	PullTriggers []string `pulumi:"pullTriggers,optional" provider:"replaceOnChanges"`
}

// RemoteImageState is what the state records of an image.
type RemoteImageState struct {
	RemoteImageArgs
	ImageID    string `pulumi:"imageId,optional"`
	RepoDigest string `pulumi:"repoDigest,optional"`
}

// RemoteImage implements docker.RemoteImage. Its id is the image's id.
type RemoteImage struct{}

// Annotate names the official provider's type.
func (*RemoteImage) Annotate(a infer.Annotator) { a.SetToken("index/remoteImage", "RemoteImage") }

// Check reports what the engine would refuse.
func (*RemoteImage) Check(ctx context.Context, req infer.CheckRequest) (infer.CheckResponse[RemoteImageArgs], error) {
	return check(ctx, req, func(args RemoteImageArgs) []string {
		var faults []string
		if _, err := reference.ParseAnyReference(args.Name); err != nil && args.Name != "" {
			faults = append(faults, fmt.Sprintf("name %q: %v", args.Name, err))
		}
		if _, err := parsePlatform(args.Platform); err != nil {
			faults = append(faults, err.Error())
		}
		return faults
	})
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

// Create looks for the image on the engine before it asks a registry, so that a stack
// whose images are there needs no network.
func (*RemoteImage) Create(
	ctx context.Context, req infer.CreateRequest[RemoteImageArgs],
) (infer.CreateResponse[RemoteImageState], error) {
	c := callOf(ctx)
	state, err := findImage(ctx, c, req.Inputs)
	if err == nil && state.ImageID == "" {
		if err = pull(ctx, c, req.Inputs); err == nil {
			state, err = findImage(ctx, c, req.Inputs)
		}
	}
	if err == nil && state.ImageID == "" {
		err = fmt.Errorf("image %s is not on the engine after its pull: something removes images there", req.Inputs.Name)
	}
	return infer.CreateResponse[RemoteImageState]{ID: state.ImageID, Output: state}, err
}

// findImage looks for the image by its name; an empty ImageID means that there is none.
func findImage(ctx context.Context, c call, args RemoteImageArgs) (RemoteImageState, error) {
	state := RemoteImageState{RemoteImageArgs: args}
	found, err := c.engine.ImageInspect(ctx, args.Name)
	if err != nil {
		return state, unlessGone(err, "image", args.Name)
	}
	state.ImageID, state.RepoDigest = found.ID, found.ID
	if len(found.RepoDigests) > 0 {
		state.RepoDigest = found.RepoDigests[0]
	}
	return state, nil
}

func pull(ctx context.Context, c call, args RemoteImageArgs) error {
	fail := func(err error) error {
		registry := engines.Registry(args.Name)
		fix := engines.PullFix(args.Name, err.Error())
		if !c.first(registry + fix) {
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
	c.status("pulling %s", args.Name)
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
		c.status("pulling %s: %s, %d of %d MB", args.Name, strings.ToLower(message.Status), current>>20, total>>20)
	}
	return nil
}

// Read looks up the name, so that a tag that moved to another image shows as a new imageId.
func (*RemoteImage) Read(
	ctx context.Context, req infer.ReadRequest[RemoteImageArgs, RemoteImageState],
) (infer.ReadResponse[RemoteImageArgs, RemoteImageState], error) {
	state, err := findImage(ctx, callOf(ctx), req.Inputs)
	if err != nil || state.ImageID == "" {
		return infer.ReadResponse[RemoteImageArgs, RemoteImageState]{}, err
	}
	req.State = state
	return infer.ReadResponse[RemoteImageArgs, RemoteImageState](req), nil
}

// Update keeps the outputs, because keepLocally matters only for a delete.
func (*RemoteImage) Update(
	_ context.Context, req infer.UpdateRequest[RemoteImageArgs, RemoteImageState],
) (infer.UpdateResponse[RemoteImageState], error) {
	req.State.RemoteImageArgs = req.Inputs
	return infer.UpdateResponse[RemoteImageState]{Output: req.State}, nil
}

// Delete keeps an image that a container still uses, because another stack may use it too.
func (*RemoteImage) Delete(ctx context.Context, req infer.DeleteRequest[RemoteImageState]) (infer.DeleteResponse, error) {
	if req.State.KeepLocally {
		return infer.DeleteResponse{}, nil
	}
	_, err := callOf(ctx).engine.ImageRemove(ctx, req.State.Name, client.ImageRemoveOptions{})
	if err == nil || cerrdefs.IsNotFound(err) || cerrdefs.IsConflict(err) {
		return infer.DeleteResponse{}, nil
	}
	return infer.DeleteResponse{}, fmt.Errorf("image %s: %w", req.State.Name, err)
}
