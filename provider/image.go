package provider

import (
	"context"
	"fmt"
	"os"

	"github.com/distribution/reference"
)

type imageArgs struct {
	ImageName string     `pulumi:"imageName" provider:"replaceOnChanges"`
	Build     imageBuild `pulumi:"build"`
	// SkipPush says that the image stays on the engine, and is not pushed to the registry that its name begins with.
	SkipPush       bool `pulumi:"skipPush,optional"`
	BuildOnPreview bool `pulumi:"buildOnPreview,optional"`
	// ContextHash is added by check, so that an edit in the context shows as a change.
	ContextHash string `pulumi:"contextHash,optional"`
}

type imageBuild struct {
	Context    string            `pulumi:"context"`
	Dockerfile string            `pulumi:"dockerfile"`
	Args       map[string]string `pulumi:"args,optional"`
	Platform   string            `pulumi:"platform,optional"`
}

const (
	imageType      = "docker:index/image:Image"
	contextHashKey = "contextHash"
)

type imageState struct {
	// RepoDigest is the image's ID, or of one that was pushed its name in the registry with its digest.
	RepoDigest string `pulumi:"repoDigest,optional"`
}

// images are docker.Image, images that are built. The ID is the image's name. As with the official provider, an image
// stays on the engine, where its layers speed up the next build and other containers may use it.
var images = &kind[imageArgs, imageState]{
	module: "index/image", name: "Image",
	check: checkImage,
	create: func(ctx context.Context, c call, args imageArgs) (string, imageState, error) {
		state, err := buildImage(ctx, c, args)
		return args.ImageName, state, err
	},
	read: readImage,
	// The image is built again, which is fast with layers that the engine still has.
	update: func(ctx context.Context, c call, _ string, args imageArgs, _ imageState) (imageState, error) {
		return buildImage(ctx, c, args)
	},
}

// checkImage also adds the hash of the build context to the inputs.
func checkImage(ctx context.Context, args *imageArgs) []string {
	var faults []string
	fault := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	if _, err := reference.ParseNormalizedNamed(args.ImageName); err != nil && args.ImageName != "" {
		fault("imageName %q: %v", args.ImageName, err)
	}
	if args.BuildOnPreview {
		fault("buildOnPreview must be false: a preview changes nothing")
	}
	if args.Build.Context == "" || args.Build.Dockerfile == "" {
		return faults
	}
	if info, err := os.Stat(args.Build.Context); err != nil || !info.IsDir() {
		fault("build.context %s is not a folder: check `sourceDir`", args.Build.Context)
	} else if _, err := os.Stat(args.Build.Dockerfile); err != nil {
		fault("build.dockerfile: %v: check `sourceDir`", err)
	} else if args.ContextHash, err = callOf(ctx).contextHash(ctx, args.Build); err != nil {
		fault("build.context %s: %v", args.Build.Context, err)
	}
	return faults
}

// readImage finds out whether the image was pruned.
func readImage(ctx context.Context, c call, _ string, _ imageArgs, state imageState) (imageState, error) {
	_, err := c.engine.ImageInspect(ctx, state.RepoDigest)
	return state, err
}
