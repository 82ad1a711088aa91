package components

import (
	"fmt"
	"maps"
	"slices"

	"github.com/pulumi/pulumi-docker/sdk/v4/go/docker"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"trading-platform/plan"
	"trading-platform/settings"
)

// Service is one service: a container for each replica, or a service of a Swarm.
type Service struct {
	pulumi.ResourceState

	// Resources are what other services depend on. The creation of each ends when it is healthy.
	Resources []pulumi.Resource
	// Containers are the names of the containers; a Swarm chooses them itself.
	Containers pulumi.StringArray
	// Steps are the containers of a service that runs once.
	Steps []*docker.Container
}

// ServiceArgs are the arguments of NewService.
type ServiceArgs struct {
	Plan     *plan.Plan
	Service  plan.Service
	Networks *Networks
	Volumes  *Volumes
	ImageID  pulumi.StringOutput // of the image that Service names
	After    []pulumi.Resource   // containers that must be healthy or have ended, or services of a Swarm that must be healthy, first
	Steps    []*docker.Container // those of them that run once
}

// NewService creates the containers of a service.
func NewService(ctx *pulumi.Context, name string, args *ServiceArgs, opts ...pulumi.ResourceOption) (*Service, error) {
	s := &Service{}
	if err := ctx.RegisterComponentResource("trading-platform:components:Service", name, s, opts...); err != nil {
		return nil, err
	}
	if args.Plan.OnSwarm() {
		if err := s.onSwarm(ctx, name, args); err != nil {
			return nil, err
		}
		return s, ctx.RegisterResourceOutputs(s, pulumi.Map{})
	}
	for i, container := range args.Service.Containers {
		resource := name
		if i > 0 {
			resource += container[len(args.Service.Containers[0]):] // _2, _3, …
		}
		c, err := docker.NewContainer(ctx, resource, containerArgs(args, i),
			pulumi.Parent(s),
			// DependsOn and not an input, so that replacing postgres does not replace its dependents.
			pulumi.DependsOn(args.After),
			// Two containers cannot share a name and a port.
			pulumi.DeleteBeforeReplace(true),
			// The official plugin reports a change of these as an update, but changes nothing on the engine.
			pulumi.ReplaceOnChanges([]string{"healthcheck", "tmpfs", "init", "cpuQuota", "cpuPeriod"}))
		if err != nil {
			return nil, err
		}
		s.Resources = append(s.Resources, c)
		s.Containers = append(s.Containers, c.Name)
		if args.Service.Once {
			s.Steps = append(s.Steps, c)
		}
	}
	return s, ctx.RegisterResourceOutputs(s, pulumi.Map{"containers": s.Containers})
}

// containerArgs returns the provider's arguments for the i-th replica of a service.
func containerArgs(args *ServiceArgs, i int) *docker.ContainerArgs {
	s := args.Service
	c := &docker.ContainerArgs{
		Name: pulumi.String(s.Containers[i]),
		// The name, which `docker ps` shows. A label has the ID, so that another image under
		// the same name replaces the container.
		Image:   pulumi.String(s.Image.Key()),
		Restart: pulumi.String(s.Restart()),
		User:    unlessZero(s.User, pulumi.StringPtr),
		Envs: pulumi.StringArray(each(s.Env, func(e plan.Env) pulumi.StringInput {
			return maybeSecret(e.Name+"="+e.Value, e.Secret) // only secrets: one makes Pulumi hide the whole list in every diff
		})),
		Healthcheck: docker.ContainerHealthcheckArgs{
			Tests:         pulumi.ToStringArray(s.Probe.Test),
			Interval:      pulumi.String(s.Probe.Interval.String()),
			Timeout:       pulumi.String(s.Probe.Timeout.String()),
			Retries:       pulumi.Int(s.Probe.Retries),
			StartPeriod:   pulumi.String(s.Probe.StartPeriod.String()),
			StartInterval: unlessZero(s.Probe.StartInterval, func(d plan.Duration) pulumi.StringPtrInput { return pulumi.String(d.String()) }),
		},
		Wait:        pulumi.Bool(true),
		WaitTimeout: waitTimeout(args),
		// Without it the plugin kills the container at once, whatever stopTimeout says.
		DestroyGraceSeconds: pulumi.Int(int(s.Grace.Seconds())),
		RemoveVolumes:       pulumi.Bool(s.Once), // those without a name, which an image declares: a step keeps nothing in them
		// Set explicitly: an engine with other defaults would cause a difference in every preview.
		LogDriver:    pulumi.String(plan.LogDriver),
		LogOpts:      pulumi.ToStringMap(plan.LogOptions),
		SecurityOpts: pulumi.ToStringArray(plan.SecurityOptions),
		Capabilities: docker.ContainerCapabilitiesArgs{
			Drops: pulumi.ToStringArray(plan.DroppedCapabilities),
			// With the prefix with which the engine returns these names.
			Adds: pulumi.StringArray(each(s.Capabilities, func(name string) pulumi.StringInput { return pulumi.String("CAP_" + name) })),
		},
		Memory: pulumi.Int(s.Memory),
		// Equal to memory, because the engine allows the same amount of swap otherwise. If it
		// were left out, every preview would show a difference.
		MemorySwap: pulumi.Int(s.Memory),
		CpuShares:  unlessZero(s.CPUShares, pulumi.IntPtr),
		Init:       unlessZero(s.Init, pulumi.BoolPtr),
		ReadOnly:   unlessZero(s.ReadOnly, pulumi.BoolPtr),
		Labels: docker.ContainerLabelArray(append(
			labels(s.Labels(args.Plan, i), func(l docker.ContainerLabelArgs) docker.ContainerLabelInput { return l }),
			docker.ContainerLabelArgs{Label: pulumi.String(plan.ImageLabel), Value: args.ImageID})),
		Ports: docker.ContainerPortArray(each(s.Ports, func(p plan.Port) docker.ContainerPortInput {
			return docker.ContainerPortArgs{Ip: pulumi.String(p.Address), External: pulumi.Int(p.Host), Internal: pulumi.Int(p.Container)}
		})),
		Volumes: docker.ContainerVolumeArray(each(s.Mounts, func(m plan.Mount) docker.ContainerVolumeInput {
			v := docker.ContainerVolumeArgs{ContainerPath: pulumi.String(m.Path), ReadOnly: unlessZero(m.ReadOnly, pulumi.BoolPtr)}
			if m.Volume != "" {
				v.VolumeName = args.Volumes.Names[m.Volume].ToStringOutput().ToStringPtrOutput()
			} else {
				v.HostPath = pulumi.String(m.Host)
			}
			return v
		})),
		Uploads: docker.ContainerUploadArray(each(s.Files, func(f plan.File) docker.ContainerUploadInput {
			upload := docker.ContainerUploadArgs{
				File:    pulumi.String(f.Path),
				Content: maybeSecret(f.Content, f.Secret).ToStringOutput().ToStringPtrOutput(),
			}
			if f.Private {
				upload.Permissions = pulumi.String("0600")
			}
			return upload
		})),
		NetworksAdvanced: docker.ContainerNetworksAdvancedArray(each(s.Networks, func(a plan.Attachment) docker.ContainerNetworksAdvancedInput {
			return docker.ContainerNetworksAdvancedArgs{
				Name:        args.Networks.Names[a.Network],
				Aliases:     pulumi.ToStringArray([]string{a.Alias}),
				Ipv4Address: unlessZero(a.Address, pulumi.StringPtr),
			}
		})),
	}
	if s.Once {
		// It stays when it has ended, as the record that it need not run again.
		c.MustRun, c.Attach = pulumi.Bool(false), pulumi.Bool(true) // without its log, which would be in the state
		c.Wait, c.Healthcheck = nil, nil
	}
	if len(s.Tmpfs) > 0 {
		tmpfs := pulumi.StringMap{}
		for _, folder := range s.Tmpfs {
			tmpfs[folder] = pulumi.String("")
		}
		c.Tmpfs = tmpfs
	}
	if len(s.DNSOptions) > 0 {
		c.DnsOpts = pulumi.ToStringArray(s.DNSOptions)
	}
	if len(s.Command) > 0 {
		// An empty list is not set: the official plugin compares it with the image's own
		// command, and each up would replace the container.
		c.Command = pulumi.ToStringArray(s.Command)
	}
	return c
}

// waitTimeout returns how long the creation of a container may take. With the official plugin, for which every exit code is a success,
// it is known only when those that run once before have ended with 0. A change of it replaces no container.
func waitTimeout(args *ServiceArgs) pulumi.IntPtrInput {
	limit := int(args.Service.Probe.WaitTimeout().Seconds())
	if len(args.Steps) == 0 || args.Plan.Provider != settings.Official {
		return pulumi.Int(limit)
	}
	var ends []any
	for _, c := range args.Steps {
		ends = append(ends, pulumi.All(c.Name, c.ExitCode).ApplyT(func(end []any) (int, error) {
			if end[1] != 0 {
				return 0, fmt.Errorf("container %[1]s ended with exit code %[2]v\nFix: docker logs %[1]s; remove the cause, then `make up STACK=%[3]s` runs it again",
					end[0], end[1], args.Plan.Stack)
			}
			return limit, nil
		}))
	}
	return pulumi.All(ends...).ApplyT(func([]any) int { return limit }).(pulumi.IntOutput).ToIntPtrOutput()
}

// unlessZero returns an optional argument, or none for the zero value: the plugin would compare that with the engine's answer.
func unlessZero[T comparable, P any](value T, argument func(T) P) (none P) {
	if value == *new(T) {
		return none
	}
	return argument(value)
}

// each converts a list of the plan to one of the provider's arguments.
func each[T, U any](all []T, convert func(T) U) []U {
	var out []U
	for _, one := range all {
		out = append(out, convert(one))
	}
	return out
}

// labels converts labels, in the order of their names, to the arguments of one kind of resource.
func labels[T any](all map[string]string, convert func(docker.ContainerLabelArgs) T) []T {
	return each(slices.Sorted(maps.Keys(all)), func(name string) T {
		return convert(docker.ContainerLabelArgs{Label: pulumi.String(name), Value: pulumi.String(all[name])})
	})
}

func maybeSecret(value string, secret bool) pulumi.StringInput {
	if secret {
		return pulumi.ToSecret(pulumi.String(value)).(pulumi.StringOutput)
	}
	return pulumi.String(value)
}
