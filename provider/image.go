package provider

import (
	"context"
	"fmt"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
)

// imageArgs are docker.Image's inputs. An id is the image's name.
type imageArgs struct {
	ImageName string `json:"imageName" rule:"required"`
	Build     *build `json:"build"     rule:"required,update"`
	// SkipPush must be true: images stay on the engine.
	SkipPush       bool `json:"skipPush"       rule:"update"`
	BuildOnPreview bool `json:"buildOnPreview" rule:"update"`
	// ContextHash is added by check, so that an edit in the context shows as a change.
	ContextHash string `json:"contextHash" rule:"update"`
}

type build struct {
	Context    string            `json:"context"`
	Dockerfile string            `json:"dockerfile"`
	Args       map[string]string `json:"args"`
	Platform   string            `json:"platform"`
	Target     string            `json:"target"`
}

const contextHashKey = "contextHash"

type imageType struct{}

// computed outputs of docker.Image. What a build gives is known only after it.
func (imageType) computed() []resource.PropertyKey { return []resource.PropertyKey{"repoDigest"} }

func (imageType) rebuilds() bool { return true }

// coexists: as for a pull, a build that fails stops nothing.
func (imageType) coexists() bool { return true }

func (imageType) validate(args imageArgs) []plugin.CheckFailure {
	var failures []plugin.CheckFailure
	fail := func(property resource.PropertyKey, format string, a ...any) {
		failures = append(failures, plugin.CheckFailure{Property: property, Reason: fmt.Sprintf(format, a...)})
	}
	if _, err := reference.ParseNormalizedNamed(args.ImageName); err != nil {
		fail("imageName", "imageName %q: %v", args.ImageName, err)
	}
	if !args.SkipPush {
		fail("skipPush", "skipPush must be true: the offline docker provider does not push images")
	}
	if args.BuildOnPreview {
		fail("buildOnPreview", "buildOnPreview must be false: a preview changes nothing")
	}
	if args.Build == nil {
		return failures
	}
	if _, err := parsePlatform(args.Build.Platform); err != nil {
		fail("build.platform", "build.%v", err)
	}
	if _, err := openContext(args.Build.Context, args.Build.Dockerfile); err != nil {
		fail("build.context", "%v", err)
	}
	return failures
}

// complete adds the context's hash to the inputs.
func (imageType) complete(args imageArgs, inputs resource.PropertyMap) (resource.PropertyMap, error) {
	files, err := openContext(args.Build.Context, args.Build.Dockerfile)
	if err != nil {
		return nil, err
	}
	hash, err := files.hash()
	if err != nil {
		return nil, err
	}
	completed := inputs.Copy()
	completed[contextHashKey] = resource.NewProperty(hash)
	return completed, nil
}

func (t imageType) create(ctx context.Context, c call, args imageArgs) (resource.ID, outputs, error) {
	out, err := t.update(ctx, c, args)
	return resource.ID(args.ImageName), out, err
}

// update builds; layers that the engine still has make that quick.
func (imageType) update(ctx context.Context, c call, args imageArgs) (outputs, error) {
	id, err := buildImage(ctx, c, args)
	if err != nil {
		return nil, err
	}
	return imageOutputs(args, id), nil
}

func imageOutputs(args imageArgs, id string) outputs {
	return outputs{
		"baseImageName":  resource.NewProperty(args.ImageName),
		"repoDigest":     resource.NewProperty(id),
		"context":        resource.NewProperty(args.Build.Context),
		"dockerfile":     resource.NewProperty(args.Build.Dockerfile),
		"registryServer": resource.NewProperty(""),
	}
}

// read says that the image is gone when it was pruned, so that the next up builds it.
func (imageType) read(ctx context.Context, c call, args imageArgs) (outputs, error) {
	id := c.recordedText("repoDigest")
	_, err := c.engine.ImageInspect(ctx, id)
	if cerrdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", args.ImageName, err)
	}
	return imageOutputs(args, id), nil
}

// remove leaves the image on the engine, like the official provider: the layers make
// the next build quick, and containers elsewhere may use it.
func (imageType) remove(context.Context, call, imageArgs) error { return nil }
