package components

import (
	"encoding/base64"

	"github.com/pulumi/pulumi-docker/sdk/v4/go/docker"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"trading-platform/plan"
)

const (
	// restartDelay is the time until Swarm starts a task again that has ended.
	restartDelay = "2s"
	// monitor is how long Swarm watches a new task after it became healthy. An update fails if it ends within this time.
	monitor = "3s"
)

// onSwarm creates the service, with its files as configs and secrets.
func (s *Service) onSwarm(ctx *pulumi.Context, name string, args *ServiceArgs) error {
	spec := serviceContainer(args)
	var configs docker.ServiceTaskSpecContainerSpecConfigArray
	var secrets docker.ServiceTaskSpecContainerSpecSecretArray
	for _, f := range args.Service.Files {
		// Their names change with the content, so that the service has the old ones until it has the new ones.
		object, path, mode := pulumi.String(args.Plan.ObjectName(args.Service, f)), pulumi.String(f.Path), pulumi.Int(0o444)
		if f.Private {
			mode = 0o400
		}
		data := maybeSecret(base64.StdEncoding.EncodeToString([]byte(f.Content)), f.Secret)
		if f.Secret {
			made, err := docker.NewSecret(ctx, name+f.Path, &docker.SecretArgs{
				Name: object, Data: data,
				Labels: docker.SecretLabelArray(labels(args.Plan.OwnLabels(), func(l docker.ContainerLabelArgs) docker.SecretLabelInput {
					return docker.SecretLabelArgs(l)
				})),
			}, pulumi.Parent(s))
			if err != nil {
				return err
			}
			secrets = append(secrets, docker.ServiceTaskSpecContainerSpecSecretArgs{
				SecretId: made.ID(), SecretName: made.Name, FileName: path, FileMode: mode,
			})
			continue
		}
		made, err := docker.NewServiceConfig(ctx, name+f.Path, &docker.ServiceConfigArgs{Name: object, Data: data}, pulumi.Parent(s))
		if err != nil {
			return err
		}
		configs = append(configs, docker.ServiceTaskSpecContainerSpecConfigArgs{
			ConfigId: made.ID(), ConfigName: made.Name, FileName: path, FileMode: mode,
		})
	}
	spec.Configs, spec.Secrets = configs, secrets
	made, err := docker.NewService(ctx, name, serviceArgs(args, spec), pulumi.Parent(s), pulumi.DependsOn(args.After), pulumi.DeleteBeforeReplace(true))
	s.Resources = append(s.Resources, made)
	return err
}

// serviceArgs returns the provider's arguments for a service whose containers have this specification.
func serviceArgs(args *ServiceArgs, spec docker.ServiceTaskSpecContainerSpecArgs) *docker.ServiceArgs {
	s, p := args.Service, args.Plan
	order, parallel := "stop-first", (len(s.Containers)+3)/4
	if s.RollsOver() {
		order = "start-first"
	}
	mode := docker.ServiceModeArgs{Replicated: docker.ServiceModeReplicatedArgs{Replicas: pulumi.Int(len(s.Containers))}}
	var constraints pulumi.StringArray
	switch s.Placement {
	case plan.EveryNode:
		mode = docker.ServiceModeArgs{Global: pulumi.Bool(true)}
	case plan.DataNode:
		constraints = pulumi.StringArray{pulumi.String("node.id==" + p.Node)}
	}
	update := docker.ServiceUpdateConfigArgs{
		Parallelism: pulumi.Int(parallel), Order: pulumi.String(order), Monitor: pulumi.String(monitor), FailureAction: pulumi.String("rollback"),
	}
	rollback := docker.ServiceRollbackConfigArgs(update)
	rollback.FailureAction = pulumi.String("pause")
	return &docker.ServiceArgs{
		Name: pulumi.String(s.Containers[0]),
		Labels: docker.ServiceLabelArray(labels(p.OwnLabels(), func(l docker.ContainerLabelArgs) docker.ServiceLabelInput {
			return docker.ServiceLabelArgs(l)
		})),
		Mode: mode,
		TaskSpec: docker.ServiceTaskSpecArgs{
			ContainerSpec: spec,
			NetworksAdvanceds: docker.ServiceTaskSpecNetworksAdvancedArray(each(s.Networks, func(a plan.Attachment) docker.ServiceTaskSpecNetworksAdvancedInput {
				return docker.ServiceTaskSpecNetworksAdvancedArgs{Name: args.Networks.IDs[a.Network], Aliases: pulumi.ToStringArray([]string{a.Alias})}
			})),
			Placement:     docker.ServiceTaskSpecPlacementArgs{Constraints: constraints},
			Resources:     docker.ServiceTaskSpecResourcesArgs{Limits: docker.ServiceTaskSpecResourcesLimitsArgs{MemoryBytes: pulumi.Int(s.Memory << 20)}},
			RestartPolicy: docker.ServiceTaskSpecRestartPolicyArgs{Condition: pulumi.String("any"), Delay: pulumi.String(restartDelay)},
			LogDriver:     docker.ServiceTaskSpecLogDriverArgs{Name: pulumi.String(plan.LogDriver), Options: pulumi.ToStringMap(plan.LogOptions)},
		},
		EndpointSpec: docker.ServiceEndpointSpecArgs{
			// A name then stands for the addresses of the tasks, as it does on an engine, and no kernel module for virtual addresses is needed.
			Mode: pulumi.String("dnsrr"),
			Ports: docker.ServiceEndpointSpecPortArray(each(s.Ports, func(p plan.Port) docker.ServiceEndpointSpecPortInput {
				return docker.ServiceEndpointSpecPortArgs{
					TargetPort: pulumi.Int(p.Container), PublishedPort: pulumi.Int(p.Host), PublishMode: pulumi.String("host"),
				}
			})),
		},
		UpdateConfig:   update,
		RollbackConfig: rollback,
		ConvergeConfig: docker.ServiceConvergeConfigArgs{Timeout: pulumi.String(s.Probe.WaitTimeout().String())},
	}
}

// serviceContainer returns what each container of a service is made of, without its files.
func serviceContainer(args *ServiceArgs) docker.ServiceTaskSpecContainerSpecArgs {
	s, p := args.Service, args.Plan
	env := pulumi.StringMap{}
	for _, e := range s.Env {
		env[e.Name] = maybeSecret(e.Value, e.Secret)
	}
	spec := docker.ServiceTaskSpecContainerSpecArgs{
		Image:    args.ImageID,
		Env:      env,
		User:     unlessZero(s.User, pulumi.StringPtr),
		ReadOnly: unlessZero(s.ReadOnly, pulumi.BoolPtr),
		CapDrops: pulumi.ToStringArray(plan.DroppedCapabilities),
		CapAdds:  pulumi.StringArray(each(s.Capabilities, func(name string) pulumi.StringInput { return pulumi.String("CAP_" + name) })),
		Healthcheck: docker.ServiceTaskSpecContainerSpecHealthcheckArgs{
			Tests:       pulumi.ToStringArray(s.Probe.Test),
			Interval:    pulumi.String(s.Probe.Interval.String()),
			Timeout:     pulumi.String(s.Probe.Timeout.String()),
			Retries:     pulumi.Int(s.Probe.Retries),
			StartPeriod: pulumi.String(s.Probe.StartPeriod.String()),
		},
		StopGracePeriod: pulumi.String(s.Grace.String()),
		Labels: docker.ServiceTaskSpecContainerSpecLabelArray(labels(s.Labels(p, 0), func(l docker.ContainerLabelArgs) docker.ServiceTaskSpecContainerSpecLabelInput {
			return docker.ServiceTaskSpecContainerSpecLabelArgs(l)
		})),
	}
	if len(s.Command) > 0 {
		spec.Args = pulumi.ToStringArray(s.Command)
	}
	var mounts docker.ServiceTaskSpecContainerSpecMountArray
	for _, m := range s.Mounts {
		mount := docker.ServiceTaskSpecContainerSpecMountArgs{
			Type: pulumi.String("bind"), Source: pulumi.String(m.Host), Target: pulumi.String(m.Path), ReadOnly: unlessZero(m.ReadOnly, pulumi.BoolPtr),
		}
		if m.Volume != "" {
			mount.Type, mount.Source = pulumi.String("volume"), args.Volumes.Names[m.Volume].ToStringOutput().ToStringPtrOutput()
		}
		mounts = append(mounts, mount)
	}
	for _, folder := range s.Tmpfs {
		mounts = append(mounts, docker.ServiceTaskSpecContainerSpecMountArgs{Type: pulumi.String("tmpfs"), Target: pulumi.String(folder)})
	}
	spec.Mounts = mounts
	return spec
}
