package components

import (
	"github.com/pulumi/pulumi-docker/sdk/v4/go/docker"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"trading-platform/plan"
)

// Service is one service: a container for each replica.
type Service struct {
	pulumi.ResourceState

	// Containers are what other services depend on. The creation of each ends when it is healthy.
	Containers []*docker.Container
}

// ServiceArgs are the arguments of NewService.
type ServiceArgs struct {
	Plan     *plan.Plan
	Service  plan.Service
	Networks *Networks
	Volumes  *Volumes
	ImageID  pulumi.StringOutput // of the image that Service names
	After    []pulumi.Resource   // containers that must be healthy first
}

// NewService creates the containers of a service.
func NewService(ctx *pulumi.Context, name string, args *ServiceArgs, opts ...pulumi.ResourceOption) (*Service, error) {
	s := &Service{}
	if err := ctx.RegisterComponentResource("trading-platform:components:Service", name, s, opts...); err != nil {
		return nil, err
	}
	var names pulumi.StringArray
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
		s.Containers = append(s.Containers, c)
		names = append(names, c.Name)
	}
	return s, ctx.RegisterResourceOutputs(s, pulumi.Map{"containers": names})
}

// containerArgs returns the provider's arguments for the i-th replica of a service.
func containerArgs(args *ServiceArgs, i int) *docker.ContainerArgs {
	s := args.Service
	c := &docker.ContainerArgs{
		Name: pulumi.String(s.Containers[i]),
		// The name, which `docker ps` shows. A label has the ID, so that another image under
		// the same name replaces the container.
		Image:   pulumi.String(s.Image.Key()),
		Restart: pulumi.String(plan.Restart),
		Healthcheck: docker.ContainerHealthcheckArgs{
			Tests:       pulumi.ToStringArray(s.Probe.Test),
			Interval:    pulumi.String(s.Probe.Interval.String()),
			Timeout:     pulumi.String(s.Probe.Timeout.String()),
			Retries:     pulumi.Int(s.Probe.Retries),
			StartPeriod: pulumi.String(s.Probe.StartPeriod.String()),
		},
		Wait:        pulumi.Bool(true),
		WaitTimeout: pulumi.Int(int(s.Probe.WaitTimeout().Seconds())),
		// Without it the plugin kills the container at once, whatever stopTimeout says.
		DestroyGraceSeconds: pulumi.Int(int(s.Grace.Seconds())),
		RemoveVolumes:       pulumi.Bool(false),
		// Set explicitly: an engine with other defaults would cause a difference in every preview.
		LogDriver:    pulumi.String(plan.LogDriver),
		LogOpts:      pulumi.ToStringMap(plan.LogOptions),
		SecurityOpts: pulumi.ToStringArray(plan.SecurityOptions),
		Capabilities: docker.ContainerCapabilitiesArgs{Drops: pulumi.ToStringArray(plan.DroppedCapabilities), Adds: capabilities(s.Capabilities)},
		Memory:       pulumi.Int(s.Memory),
		// Equal to memory, because the engine allows the same amount of swap otherwise. If it
		// were left out, every preview would show a difference.
		MemorySwap: pulumi.Int(s.Memory),
	}
	if s.CPUShares > 0 {
		c.CpuShares = pulumi.Int(s.CPUShares)
	}
	if s.Init {
		c.Init = pulumi.Bool(true)
	}
	if s.ReadOnly {
		c.ReadOnly = pulumi.Bool(true)
	}
	if len(s.Tmpfs) > 0 {
		tmpfs := pulumi.StringMap{}
		for _, folder := range s.Tmpfs {
			tmpfs[folder] = pulumi.String("")
		}
		c.Tmpfs = tmpfs
	}
	if interval := s.Probe.StartInterval; interval.Duration > 0 {
		h := c.Healthcheck.(docker.ContainerHealthcheckArgs)
		h.StartInterval = pulumi.String(interval.String())
		c.Healthcheck = h
	}
	if len(s.Command) > 0 {
		// An empty list is not set: the official plugin compares it with the image's own
		// command, and each up would replace the container.
		c.Command = pulumi.ToStringArray(s.Command)
	}
	if s.User != "" {
		c.User = pulumi.String(s.User)
	}
	c.Labels = append(labels(s.Labels(args.Plan, i)),
		docker.ContainerLabelArgs{Label: pulumi.String(plan.ImageLabel), Value: args.ImageID})
	c.Envs = envs(s.Env)
	c.Ports = ports(s.Ports)
	c.Volumes = mounts(s.Mounts, args.Volumes)
	c.Uploads = uploads(s.Files)
	c.NetworksAdvanced = attachments(s.Networks, args.Networks)
	return c
}

// capabilities adds the prefix with which the engine returns these names.
func capabilities(names []string) pulumi.StringArray {
	var out pulumi.StringArray
	for _, name := range names {
		out = append(out, pulumi.String("CAP_"+name))
	}
	return out
}

func labels(all []plan.Label) docker.ContainerLabelArray {
	var out docker.ContainerLabelArray
	for _, l := range all {
		out = append(out, docker.ContainerLabelArgs{Label: pulumi.String(l.Name), Value: pulumi.String(l.Value)})
	}
	return out
}

// envs marks only secrets as such: one secret makes Pulumi hide the whole list in every diff.
func envs(all []plan.Env) pulumi.StringArray {
	var out pulumi.StringArray
	for _, e := range all {
		out = append(out, maybeSecret(e.Name+"="+e.Value, e.Secret))
	}
	return out
}

func maybeSecret(value string, secret bool) pulumi.StringInput {
	if secret {
		return pulumi.ToSecret(pulumi.String(value)).(pulumi.StringOutput)
	}
	return pulumi.String(value)
}

func ports(all []plan.Port) docker.ContainerPortArray {
	var out docker.ContainerPortArray
	for _, p := range all {
		out = append(out, docker.ContainerPortArgs{
			Ip: pulumi.String(p.Address), External: pulumi.Int(p.Host), Internal: pulumi.Int(p.Container),
		})
	}
	return out
}

func mounts(all []plan.Mount, volumes *Volumes) docker.ContainerVolumeArray {
	var out docker.ContainerVolumeArray
	for _, m := range all {
		v := docker.ContainerVolumeArgs{ContainerPath: pulumi.String(m.Path)}
		if m.Volume != "" {
			v.VolumeName = volumes.Names[m.Volume].ToStringOutput().ToStringPtrOutput()
		} else {
			v.HostPath = pulumi.String(m.Host)
		}
		if m.ReadOnly {
			v.ReadOnly = pulumi.Bool(true)
		}
		out = append(out, v)
	}
	return out
}

func uploads(all []plan.File) docker.ContainerUploadArray {
	var out docker.ContainerUploadArray
	for _, f := range all {
		upload := docker.ContainerUploadArgs{
			File:    pulumi.String(f.Path),
			Content: maybeSecret(f.Content, f.Secret).ToStringOutput().ToStringPtrOutput(),
		}
		if f.Private {
			upload.Permissions = pulumi.String("0600")
		}
		out = append(out, upload)
	}
	return out
}

func attachments(all []plan.Attachment, networks *Networks) docker.ContainerNetworksAdvancedArray {
	var out docker.ContainerNetworksAdvancedArray
	for _, a := range all {
		n := docker.ContainerNetworksAdvancedArgs{
			Name:    networks.Names[a.Network],
			Aliases: pulumi.ToStringArray([]string{a.Alias}),
		}
		if a.Address != "" {
			n.Ipv4Address = pulumi.String(a.Address)
		}
		out = append(out, n)
	}
	return out
}
