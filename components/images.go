package components

import (
	"strings"

	"github.com/pulumi/pulumi-docker/sdk/v4/go/docker"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"trading-platform/plan"
)

// Images are the images of the services. Each is pulled or built once.
type Images struct {
	pulumi.ResourceState

	IDs map[string]pulumi.StringOutput // image ID by service
}

// ImagesArgs are the arguments of NewImages.
type ImagesArgs struct {
	Services []plan.Service
	Platform string // the platform to build for, as in PlatformArgs
}

// NewImages pulls or builds the images of all services.
func NewImages(ctx *pulumi.Context, name string, args *ImagesArgs, opts ...pulumi.ResourceOption) (*Images, error) {
	i := &Images{IDs: map[string]pulumi.StringOutput{}}
	if err := ctx.RegisterComponentResource("trading-platform:components:Images", name, i, opts...); err != nil {
		return nil, err
	}
	made := map[string]image{}
	var newOnce func(p plan.Image) (image, error)
	newOnce = func(p plan.Image) (image, error) {
		if known, ok := made[p.Key()]; ok {
			return known, nil
		}
		var first []pulumi.Resource
		if p.Build != nil {
			for _, context := range p.Build.Contexts {
				before, err := newOnce(plan.Image{Build: &context})
				if err != nil {
					return image{}, err
				}
				first = append(first, before.resource)
			}
		}
		one, err := newImage(ctx, name+"-"+p.Key(), p, args.Platform, pulumi.Parent(i), pulumi.DependsOn(first))
		made[p.Key()] = one
		return one, err
	}
	for _, s := range args.Services {
		one, err := newOnce(s.Image)
		if err != nil {
			return nil, err
		}
		i.IDs[s.Name] = one.id
	}
	return i, ctx.RegisterResourceOutputs(i, pulumi.Map{})
}

// image is the resource and the ID of one image.
type image struct {
	resource pulumi.Resource
	id       pulumi.StringOutput
}

// newImage pulls or builds an image. Both kinds of resource have the image's ID, which
// changes exactly when the content of the image changes.
func newImage(ctx *pulumi.Context, name string, p plan.Image, platform string, opts ...pulumi.ResourceOption) (image, error) {
	if p.Build == nil {
		remote, err := docker.NewRemoteImage(ctx, name, &docker.RemoteImageArgs{
			Name:        pulumi.String(p.Reference),
			KeepLocally: pulumi.Bool(true), // another stack may use it
		}, opts...)
		if err != nil {
			return image{}, err
		}
		return image{remote, remote.ImageId}, nil
	}
	built, err := docker.NewImage(ctx, name, &docker.ImageArgs{
		ImageName: pulumi.String(p.Build.Name),
		SkipPush:  pulumi.Bool(true),
		Build: docker.DockerBuildArgs{
			Context:    pulumi.String(p.Build.Context),
			Dockerfile: pulumi.String(p.Build.Dockerfile),
			Args:       pulumi.ToStringMap(p.Build.Args),
			// Without it, the plugin asks the engine in each run, and the result may differ.
			Platform: pulumi.String(platform),
		},
	}, opts...)
	if err != nil {
		return image{}, err
	}
	// The digest of an image that was not pushed is its ID.
	id := built.RepoDigest.ApplyT(func(digest string) string {
		return digest[strings.LastIndex(digest, "@")+1:]
	}).(pulumi.StringOutput)
	return image{built, id}, nil
}
