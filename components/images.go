package components

import (
	"cmp"
	"strings"

	"github.com/pulumi/pulumi-docker/sdk/v4/go/docker"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"trading-platform/plan"
)

// Images are the images of the services. Each is pulled or built once.
type Images struct {
	pulumi.ResourceState

	// IDs are by plan.Image.Key. One changes exactly when the content of the image changes. On a Swarm it is the digest in a
	// registry, if there is one: by it every node pulls the image. A node uses an image that is named by its ID if it has it.
	IDs       map[string]pulumi.StringOutput
	resources map[string]pulumi.Resource
}

// NewImages pulls or builds the images of all services.
func NewImages(ctx *pulumi.Context, name string, args *PlatformArgs, opts ...pulumi.ResourceOption) (*Images, error) {
	i := &Images{IDs: map[string]pulumi.StringOutput{}, resources: map[string]pulumi.Resource{}}
	if err := ctx.RegisterComponentResource("trading-platform:components:Images", name, i, opts...); err != nil {
		return nil, err
	}
	for _, s := range args.Plan.Services {
		if err := i.add(ctx, name, s.Image, args); err != nil {
			return nil, err
		}
	}
	return i, ctx.RegisterResourceOutputs(i, pulumi.Map{})
}

// add pulls or builds an image, after those that its Dockerfile copies from.
func (i *Images) add(ctx *pulumi.Context, name string, p plan.Image, args *PlatformArgs) error {
	key := p.Key()
	if i.resources[key] != nil {
		return nil
	}
	if p.Build == nil {
		pulled, err := docker.NewRemoteImage(ctx, name+"-"+key, &docker.RemoteImageArgs{
			Name:        pulumi.String(p.Reference),
			KeepLocally: pulumi.Bool(true), // another stack may use it
		}, pulumi.Parent(i))
		if err != nil {
			return err
		}
		i.resources[key], i.IDs[key] = pulled, pulled.ImageId
		if args.Plan.OnSwarm() {
			i.IDs[key] = pulumi.All(pulled.ImageId, pulled.RepoDigest).ApplyT(func(names []any) string {
				return cmp.Or(names[1].(string), names[0].(string))
			}).(pulumi.StringOutput)
		}
		return nil
	}
	var first []pulumi.Resource
	for _, context := range p.Build.Contexts {
		if err := i.add(ctx, name, plan.Image{Build: &context}, args); err != nil {
			return err
		}
		first = append(first, i.resources[context.Name])
	}
	built, err := docker.NewImage(ctx, name+"-"+key, &docker.ImageArgs{
		ImageName: pulumi.String(p.Build.Name),
		SkipPush:  pulumi.Bool(!p.Build.Push),
		Build: docker.DockerBuildArgs{
			Context:    pulumi.String(p.Build.Context),
			Dockerfile: pulumi.String(p.Build.Dockerfile),
			Args:       pulumi.ToStringMap(p.Build.Args),
			// Without it, the plugin asks the engine in each run, and the result may differ.
			Platform: pulumi.String(args.BuildPlatform),
		},
	}, pulumi.Parent(i), pulumi.DependsOn(first))
	if err != nil {
		return err
	}
	push := p.Build.Push
	i.resources[key], i.IDs[key] = built, built.RepoDigest.ApplyT(func(digest string) string {
		if push {
			return digest
		}
		// The digest of an image that was not pushed is its ID.
		return digest[strings.LastIndex(digest, "@")+1:]
	}).(pulumi.StringOutput)
	return nil
}
