package components

import (
	"runtime"
	"strings"

	"github.com/pulumi/pulumi-docker/sdk/v4/go/docker"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"trading-platform/plan"
)

// Images is the images that the services run, each pulled, found or built once.
type Images struct {
	pulumi.ResourceState

	ByService map[string]pulumi.StringOutput // image id by service
}

// ImagesArgs says whose images.
type ImagesArgs struct {
	Services []plan.Service
}

// NewImages makes sure of the images of all the services.
func NewImages(ctx *pulumi.Context, name string, args *ImagesArgs, opts ...pulumi.ResourceOption) (*Images, error) {
	i := &Images{ByService: map[string]pulumi.StringOutput{}}
	if err := ctx.RegisterComponentResource("trading-platform:components:Images", name, i, opts...); err != nil {
		return nil, err
	}
	made := map[string]pulumi.StringOutput{}
	for _, s := range args.Services {
		key := s.Image.Key()
		if _, ok := made[key]; !ok {
			id, err := newImage(ctx, name+"-"+key, s.Image, pulumi.Parent(i))
			if err != nil {
				return nil, err
			}
			made[key] = id
		}
		i.ByService[s.Name] = made[key]
	}
	return i, ctx.RegisterResourceOutputs(i, pulumi.Map{})
}

// newImage gives an image's id. Both kinds of resource name the image by its id,
// so that a container is replaced when, and only when, the content is another.
func newImage(ctx *pulumi.Context, name string, image plan.Image, opts ...pulumi.ResourceOption) (pulumi.StringOutput, error) {
	if image.Build == nil {
		remote, err := docker.NewRemoteImage(ctx, name, &docker.RemoteImageArgs{
			Name:        pulumi.String(image.Reference),
			KeepLocally: pulumi.Bool(true), // another stack may run it
		}, opts...)
		if err != nil {
			return pulumi.StringOutput{}, err
		}
		return remote.ImageId, nil
	}
	built, err := docker.NewImage(ctx, name, &docker.ImageArgs{
		ImageName: pulumi.String(image.Build.Name),
		SkipPush:  pulumi.Bool(true),
		Build: docker.DockerBuildArgs{
			Context:    pulumi.String(image.Build.Context),
			Dockerfile: pulumi.String(image.Build.Dockerfile),
			Args:       pulumi.ToStringMap(image.Build.Args),
			// Left out, the plugin asks the engine each time and may differ.
			Platform: pulumi.String("linux/" + runtime.GOARCH),
		},
	}, opts...)
	if err != nil {
		return pulumi.StringOutput{}, err
	}
	// Unpushed, the digest is the image's id.
	return built.RepoDigest.ApplyT(func(digest string) string {
		return digest[strings.LastIndex(digest, "@")+1:]
	}).(pulumi.StringOutput), nil
}
