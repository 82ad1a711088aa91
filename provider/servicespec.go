package provider

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
)

type serviceArgs struct {
	Name           string        `pulumi:"name" provider:"replaceOnChanges"`
	TaskSpec       taskSpec      `pulumi:"taskSpec"`
	Mode           serviceMode   `pulumi:"mode"`
	EndpointSpec   *endpointSpec `pulumi:"endpointSpec,optional"`
	UpdateConfig   *updateConfig `pulumi:"updateConfig,optional"`
	RollbackConfig *updateConfig `pulumi:"rollbackConfig,optional"`
	Labels         []label       `pulumi:"labels,optional"`
	// ConvergeConfig is required: this provider waits until a service runs.
	ConvergeConfig convergeConfig `pulumi:"convergeConfig"`
}

type taskSpec struct {
	ContainerSpec     serviceContainer    `pulumi:"containerSpec"`
	NetworksAdvanceds []serviceAttachment `pulumi:"networksAdvanceds,optional"`
	Placement         *placement          `pulumi:"placement,optional"`
	Resources         *serviceResources   `pulumi:"resources,optional"`
	RestartPolicy     *restartPolicy      `pulumi:"restartPolicy,optional"`
	LogDriver         *logDriver          `pulumi:"logDriver,optional"`
}

type serviceContainer struct {
	Image           string            `pulumi:"image"`
	Args            []string          `pulumi:"args,optional"`
	Env             map[string]string `pulumi:"env,optional"`
	User            string            `pulumi:"user,optional"`
	ReadOnly        bool              `pulumi:"readOnly,optional"`
	CapAdds         []string          `pulumi:"capAdds,optional"`
	CapDrops        []string          `pulumi:"capDrops,optional"`
	StopGracePeriod duration          `pulumi:"stopGracePeriod,optional"`
	Healthcheck     *healthcheck      `pulumi:"healthcheck,optional"`
	Labels          []label           `pulumi:"labels,optional"`
	Mounts          []serviceMount    `pulumi:"mounts,optional"`
	Configs         []configFile      `pulumi:"configs,optional"`
	Secrets         []secretFile      `pulumi:"secrets,optional"`
}

type serviceMount struct {
	Type     string `pulumi:"type"`
	Source   string `pulumi:"source,optional"`
	Target   string `pulumi:"target"`
	ReadOnly bool   `pulumi:"readOnly,optional"`
}

// configFile and secretFile are files that belong to root.
type configFile struct {
	ConfigID   string `pulumi:"configId"`
	ConfigName string `pulumi:"configName"`
	FileName   string `pulumi:"fileName"`
	FileMode   int    `pulumi:"fileMode"`
}

type secretFile struct {
	SecretID   string `pulumi:"secretId"`
	SecretName string `pulumi:"secretName"`
	FileName   string `pulumi:"fileName"`
	FileMode   int    `pulumi:"fileMode"`
}

type serviceAttachment struct {
	Name    string   `pulumi:"name"` // the network's ID
	Aliases []string `pulumi:"aliases,optional"`
}

type placement struct {
	Constraints []string `pulumi:"constraints,optional"`
}

type serviceResources struct {
	Limits *serviceLimits `pulumi:"limits,optional"`
}

type serviceLimits struct {
	MemoryBytes int64 `pulumi:"memoryBytes,optional"`
}

type restartPolicy struct {
	Condition string   `pulumi:"condition,optional"`
	Delay     duration `pulumi:"delay,optional"`
}

type logDriver struct {
	Name    string            `pulumi:"name"`
	Options map[string]string `pulumi:"options,optional"`
}

type serviceMode struct {
	Global     bool        `pulumi:"global,optional" provider:"replaceOnChanges"`
	Replicated *replicated `pulumi:"replicated,optional"`
}

type replicated struct {
	Replicas int `pulumi:"replicas"`
}

type endpointSpec struct {
	Mode  string        `pulumi:"mode,optional"`
	Ports []servicePort `pulumi:"ports,optional"`
}

type servicePort struct {
	TargetPort    int    `pulumi:"targetPort"`
	PublishedPort int    `pulumi:"publishedPort,optional"`
	PublishMode   string `pulumi:"publishMode,optional"`
}

type updateConfig struct {
	Parallelism   int      `pulumi:"parallelism,optional"`
	FailureAction string   `pulumi:"failureAction,optional"`
	Monitor       duration `pulumi:"monitor,optional"`
	Order         string   `pulumi:"order,optional"`
}

type convergeConfig struct {
	Timeout duration `pulumi:"timeout"`
}

// serviceSpec is the service in the form of the engine's API.
func serviceSpec(args serviceArgs) (swarm.ServiceSpec, []string) {
	var faults []string
	c := args.TaskSpec.ContainerSpec
	container := &swarm.ContainerSpec{
		Image: c.Image, Args: c.Args, User: c.User, ReadOnly: c.ReadOnly, Labels: labelMap(c.Labels),
		CapabilityAdd: c.CapAdds, CapabilityDrop: c.CapDrops, StopGracePeriod: pointer(c.StopGracePeriod), Healthcheck: c.Healthcheck.config(),
	}
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		container.Env = append(container.Env, name+"="+c.Env[name])
	}
	for _, m := range c.Mounts {
		if (m.Source == "") != (m.Type == "tmpfs") {
			faults = append(faults, fmt.Sprintf("mounts: %s: a volume or bind takes a source, and a tmpfs none", m.Target))
		}
		container.Mounts = append(container.Mounts, mount.Mount{Type: mount.Type(m.Type), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly})
	}
	const root = "0"
	for _, f := range c.Configs {
		container.Configs = append(container.Configs, &swarm.ConfigReference{ConfigID: f.ConfigID, ConfigName: f.ConfigName, File: &swarm.ConfigReferenceFileTarget{
			Name: f.FileName, UID: root, GID: root, Mode: os.FileMode(f.FileMode), //nolint:gosec // permission bits
		}})
	}
	for _, f := range c.Secrets {
		container.Secrets = append(container.Secrets, &swarm.SecretReference{SecretID: f.SecretID, SecretName: f.SecretName, File: &swarm.SecretReferenceFileTarget{
			Name: f.FileName, UID: root, GID: root, Mode: os.FileMode(f.FileMode), //nolint:gosec // permission bits
		}})
	}
	task := swarm.TaskSpec{ContainerSpec: container}
	for _, n := range args.TaskSpec.NetworksAdvanceds {
		task.Networks = append(task.Networks, swarm.NetworkAttachmentConfig{Target: n.Name, Aliases: n.Aliases})
	}
	if p := args.TaskSpec.Placement; p != nil {
		task.Placement = &swarm.Placement{Constraints: p.Constraints}
	}
	if r := args.TaskSpec.Resources; r != nil && r.Limits != nil {
		task.Resources = &swarm.ResourceRequirements{Limits: &swarm.Limit{MemoryBytes: r.Limits.MemoryBytes}}
	}
	if r := args.TaskSpec.RestartPolicy; r != nil {
		task.RestartPolicy = &swarm.RestartPolicy{Condition: swarm.RestartPolicyCondition(r.Condition), Delay: pointer(r.Delay)}
	}
	if l := args.TaskSpec.LogDriver; l != nil {
		task.LogDriver = &swarm.Driver{Name: l.Name, Options: l.Options}
	}
	spec := swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: args.Name, Labels: labelMap(args.Labels)}, TaskTemplate: task,
		UpdateConfig: args.UpdateConfig.config(), RollbackConfig: args.RollbackConfig.config(),
	}
	switch replicas := args.Mode.Replicated; {
	case args.Mode.Global == (replicas != nil), replicas != nil && replicas.Replicas < 0:
		faults = append(faults, "mode must be either global, or replicated with a number of replicas")
	case args.Mode.Global:
		spec.Mode.Global = &swarm.GlobalService{}
	default:
		count := uint64(replicas.Replicas) //nolint:gosec // checked above
		spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &count}
	}
	if e := args.EndpointSpec; e != nil {
		spec.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionMode(e.Mode)}
		for _, p := range e.Ports {
			if p.TargetPort < 1 || p.TargetPort > 65535 || p.PublishedPort < 0 || p.PublishedPort > 65535 {
				faults = append(faults, fmt.Sprintf("endpointSpec.ports: %d → %d/tcp is not a valid port", p.PublishedPort, p.TargetPort))
			}
			spec.EndpointSpec.Ports = append(spec.EndpointSpec.Ports, swarm.PortConfig{
				Protocol: network.TCP, PublishMode: swarm.PortConfigPublishMode(p.PublishMode),
				TargetPort: uint32(p.TargetPort), PublishedPort: uint32(p.PublishedPort), //nolint:gosec // checked above
			})
		}
	}
	return spec, faults
}

// config is the policy in the form of the engine's API.
func (u *updateConfig) config() *swarm.UpdateConfig {
	if u == nil {
		return nil
	}
	return &swarm.UpdateConfig{
		Parallelism: uint64(max(0, u.Parallelism)), FailureAction: swarm.FailureAction(u.FailureAction),
		Monitor: u.Monitor.value(), Order: swarm.UpdateOrder(u.Order),
	}
}

func pointer(d duration) *time.Duration {
	if d == "" {
		return nil
	}
	value := d.value()
	return &value
}
