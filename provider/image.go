package provider

import (
	"context"
	"fmt"

	"github.com/distribution/reference"
	"github.com/pulumi/pulumi-go-provider/infer"
	"github.com/pulumi/pulumi/sdk/v3/go/property"
)

// ImageArgs are docker.Image's inputs.
type ImageArgs struct {
	ImageName string      `pulumi:"imageName" provider:"replaceOnChanges"`
	Build     *imageBuild `pulumi:"build"`
	// SkipPush must be true: images stay on the engine.
	SkipPush       bool `pulumi:"skipPush,optional"`
	BuildOnPreview bool `pulumi:"buildOnPreview,optional"`
	// ContextHash is added by check, so that an edit in the context shows as a change.
	ContextHash string `pulumi:"contextHash,optional"`
}

type imageBuild struct {
	Context    string            `pulumi:"context,optional"`
	Dockerfile string            `pulumi:"dockerfile,optional"`
	Args       map[string]string `pulumi:"args,optional"`
	Platform   string            `pulumi:"platform,optional"`
	Target     string            `pulumi:"target,optional"`
}

const (
	imageType      = "docker:index/image:Image"
	contextHashKey = "contextHash"
)

// ImageState is what the state records of a built image; RepoDigest is its id.
type ImageState struct {
	ImageArgs
	BaseImageName  string `pulumi:"baseImageName,optional"`
	RepoDigest     string `pulumi:"repoDigest,optional"`
	Context        string `pulumi:"context,optional"`
	Dockerfile     string `pulumi:"dockerfile,optional"`
	RegistryServer string `pulumi:"registryServer,optional"`
}

func imageState(args ImageArgs, id string) ImageState {
	state := ImageState{ImageArgs: args, BaseImageName: args.ImageName, RepoDigest: id}
	if args.Build != nil {
		state.Context, state.Dockerfile = args.Build.Context, args.Build.Dockerfile
	}
	return state
}

// Image implements docker.Image. Its id is the image's name. It has no Delete: as with the official
// provider, the image stays on the engine, where its layers speed up the next build
// and other containers may use it.
type Image struct{}

// Annotate names the official provider's type.
func (*Image) Annotate(a infer.Annotator) { a.SetToken("index/image", "Image") }

// Check adds the context's hash to the inputs.
func (*Image) Check(ctx context.Context, req infer.CheckRequest) (infer.CheckResponse[ImageArgs], error) {
	resp, err := check(ctx, req, imageFaults)
	if err != nil || len(resp.Failures) > 0 || property.New(req.NewInputs).HasComputed() {
		return resp, err
	}
	files, err := openContext(resp.Inputs.Build.Context, resp.Inputs.Build.Dockerfile)
	if err != nil {
		return resp, err
	}
	resp.Inputs.ContextHash, err = files.hash(ctx)
	return resp, err
}

func imageFaults(args ImageArgs) []string {
	var faults []string
	fault := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	if _, err := reference.ParseNormalizedNamed(args.ImageName); err != nil && args.ImageName != "" {
		fault("imageName %q: %v", args.ImageName, err)
	}
	if !args.SkipPush {
		fault("skipPush must be true: the offline docker provider does not push images")
	}
	if args.BuildOnPreview {
		fault("buildOnPreview must be false: a preview changes nothing")
	}
	if args.Build == nil {
		return faults
	}
	if _, err := parsePlatform(args.Build.Platform); err != nil {
		fault("build.%v", err)
	}
	if _, err := openContext(args.Build.Context, args.Build.Dockerfile); err != nil {
		fault("%v", err)
	}
	return faults
}

// Create builds the image.
func (*Image) Create(ctx context.Context, req infer.CreateRequest[ImageArgs]) (infer.CreateResponse[ImageState], error) {
	state, err := buildImage(ctx, callOf(ctx), req.Inputs)
	return infer.CreateResponse[ImageState]{ID: req.Inputs.ImageName, Output: state}, err
}

// Update builds the image again, which is fast with layers that the engine still has.
func (*Image) Update(
	ctx context.Context, req infer.UpdateRequest[ImageArgs, ImageState],
) (infer.UpdateResponse[ImageState], error) {
	state, err := buildImage(ctx, callOf(ctx), req.Inputs)
	return infer.UpdateResponse[ImageState]{Output: state}, err
}

// Read reports an image that was pruned as deleted, so that the next up builds it.
func (*Image) Read(
	ctx context.Context, req infer.ReadRequest[ImageArgs, ImageState],
) (infer.ReadResponse[ImageArgs, ImageState], error) {
	_, err := callOf(ctx).engine.ImageInspect(ctx, req.State.RepoDigest)
	if err != nil {
		return infer.ReadResponse[ImageArgs, ImageState]{}, unlessGone(err, "image", req.State.ImageName)
	}
	req.State = imageState(req.Inputs, req.State.RepoDigest)
	return infer.ReadResponse[ImageArgs, ImageState](req), nil
}
