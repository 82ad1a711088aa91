package provider

import (
	"context"
	"fmt"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/client"

	engines "trading-platform/engine"
)

type remoteImageArgs struct {
	Name string `pulumi:"name" provider:"replaceOnChanges"`
	// KeepLocally must be true: another stack may use the image.
	KeepLocally bool `pulumi:"keepLocally,optional"`
}

type remoteImageState struct {
	ImageID string `pulumi:"imageId,optional"`
	// RepoDigest names the image in the registry that it was pulled from; it is empty for one that is on the engine only.
	RepoDigest string `pulumi:"repoDigest,optional"`
}

// remoteImages are docker.RemoteImage, images that are pulled. The ID is the image's. An image stays on the engine.
var remoteImages = &kind[remoteImageArgs, remoteImageState]{
	module: "index/remoteImage", name: "RemoteImage",
	check: checkRemoteImage, create: createRemoteImage,
	// A tag that moved to another image shows as a new imageId.
	read: func(ctx context.Context, c call, _ string, args remoteImageArgs, _ remoteImageState) (remoteImageState, error) {
		return findImage(ctx, c, args)
	},
}

func checkRemoteImage(_ context.Context, args *remoteImageArgs) []string {
	var faults []string
	if _, err := reference.ParseAnyReference(args.Name); err != nil && args.Name != "" {
		faults = append(faults, fmt.Sprintf("name %q: %v", args.Name, err))
	}
	if !args.KeepLocally {
		faults = append(faults, "keepLocally must be true: other stacks may use an image, so the offline docker provider removes none")
	}
	return faults
}

// createRemoteImage looks for the image on the engine before it asks a registry, so that a stack
// whose images are there needs no network.
func createRemoteImage(ctx context.Context, c call, args remoteImageArgs) (string, remoteImageState, error) {
	state, err := findImage(ctx, c, args)
	if cerrdefs.IsNotFound(err) {
		if err = pull(ctx, c, args); err == nil {
			state, err = findImage(ctx, c, args)
		}
	}
	return state.ImageID, state, err
}

// findImage looks for the image by its name.
func findImage(ctx context.Context, c call, args remoteImageArgs) (remoteImageState, error) {
	found, err := c.engine.ImageInspect(ctx, args.Name)
	state := remoteImageState{ImageID: found.ID}
	if len(found.RepoDigests) > 0 {
		state.RepoDigest = found.RepoDigests[0]
	}
	return state, err
}

// pull pulls the image, and shows how much of it has arrived.
func pull(ctx context.Context, c call, args remoteImageArgs) error {
	if err := pullLayers(ctx, c, args); err != nil {
		registry := engines.Registry(args.Name)
		fix := engines.PullFix(args.Name, err.Error())
		if !c.first(registry + fix) {
			return fmt.Errorf("image %s could not be pulled from %s for the same cause", args.Name, registry)
		}
		return fmt.Errorf("image %s could not be pulled from %s: %w\nFix: %s", args.Name, registry, err, fix)
	}
	return nil
}

func pullLayers(ctx context.Context, c call, args remoteImageArgs) error {
	login, err := registryAuth(args.Name)
	if err != nil {
		return err
	}
	c.log.InfoStatusf("pulling %s", args.Name)
	stream, err := c.engine.ImagePull(ctx, args.Name, client.ImagePullOptions{RegistryAuth: login})
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	var shown time.Time
	layers := map[string][2]int64{} // the bytes that have arrived, and all
	for message, err := range stream.JSONMessages(ctx) {
		if err != nil {
			return err
		}
		if message.Error != nil {
			return message.Error
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
		c.log.InfoStatusf("pulling %s: %s, %d of %d MB", args.Name, strings.ToLower(message.Status), current>>20, total>>20)
	}
	return nil
}
