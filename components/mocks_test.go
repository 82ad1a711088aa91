package components_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/pulumi/pulumi-docker/sdk/v4/go/docker"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog/catalogtest"
	"trading-platform/components"
	"trading-platform/plan"
	"trading-platform/settings"
)

// The type tokens of what a stack consists of.
const (
	providerType  = "pulumi:providers:docker"
	containerType = "docker:index/container:Container"
	networkType   = "docker:index/network:Network"
	volumeType    = "docker:index/volume:Volume"
	remoteType    = "docker:index/remoteImage:RemoteImage"
	imageType     = "docker:index/image:Image"
)

// monitor is a fake Pulumi engine that records what is registered.
type monitor struct {
	mu      sync.Mutex
	preview bool
	exit    int // the exit code of containers that run to their end
	all     []pulumi.MockResourceArgs
}

func (m *monitor) NewResource(args pulumi.MockResourceArgs) (string, resource.PropertyMap, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, args)
	outputs := args.Inputs.Copy()
	if !m.preview { // in a preview nobody knows them yet
		switch args.TypeToken {
		case remoteType:
			outputs["imageId"] = resource.NewStringProperty("sha256:id-of-" + args.Inputs["name"].StringValue())
		case containerType:
			outputs["exitCode"] = resource.NewNumberProperty(float64(m.exit))
		case imageType:
			name := args.Inputs["imageName"].StringValue()
			outputs["repoDigest"] = resource.NewStringProperty(name + "@sha256:id-of-" + name)
		}
	}
	return args.Name + "-id", outputs, nil
}

func (m *monitor) Call(pulumi.MockCallArgs) (resource.PropertyMap, error) {
	return resource.PropertyMap{}, nil
}

// of returns the registered resources of a type, by name.
func (m *monitor) of(token string) map[string]pulumi.MockResourceArgs {
	out := map[string]pulumi.MockResourceArgs{}
	for _, r := range m.all {
		if r.TypeToken == token {
			out[r.Name] = r
		}
	}
	return out
}

// nameOf returns the name at the end of a URN.
func nameOf(urn string) string { return urn[strings.LastIndex(urn, "::")+2:] }

// own are the variables that a stack with every profile needs if others can reach it.
var own = catalogtest.Required(map[string]string{
	"POSTGRES_PASSWORD": "pg", "GF_SECURITY_ADMIN_PASSWORD": "gf", "WEB_CONSOLE_USER": "me", "WEB_CONSOLE_PASSWORD": "wc",
	"ALERT_RECIPIENT_HASH_SECRET": "alert", "SESSION_ENCRYPTION_KEY": "session",
	"AUTH0_DOMAIN": "tenant.example.com", "AUTH0_CLIENT_ID": "client", "AUTH0_CLIENT_SECRET": "auth0",
	"serviceEnv": `{"web_console_dev":{"HMAC_SIGNING_KEYS":"02:abc","SESSION_ENCRYPTION_KEY":"mine"}}`,
	"profiles":   `["dev","workers","oauth2","manual"]`, "replicas": `{"alert_worker":2}`,
})

func planOf(t *testing.T, configs ...map[string]string) *plan.Plan {
	t.Helper()
	src := settings.Source{Stack: "test", Root: "/clone", Config: map[string]string{"identity": "id"}}
	for _, c := range configs {
		for key, value := range c {
			src.Config[key] = value
		}
	}
	set, err := settings.Load(src)
	require.NoError(t, err)
	p, err := plan.Resolve(set, map[string]string{"server.key": "key"})
	require.NoError(t, err)
	return p
}

// standUp registers a plan's platform with its own provider, as the program does.
func standUp(t *testing.T, preview bool, p *plan.Plan) *monitor {
	t.Helper()
	m := &monitor{preview: preview}
	err := pulumi.RunErr(func(ctx *pulumi.Context) error {
		provider, err := docker.NewProvider(ctx, "docker", &docker.ProviderArgs{})
		if err != nil {
			return err
		}
		_, err = components.NewPlatform(ctx, "platform", &components.PlatformArgs{Plan: p, BuildPlatform: "linux/riscv64"}, pulumi.Provider(provider))
		return err
	}, pulumi.WithMocks("trading-platform", "test", m), func(info *pulumi.RunInfo) { info.DryRun = preview })
	require.NoError(t, err)
	return m
}

// bothWays runs a test on what a preview and what an up registers.
func bothWays(t *testing.T, p *plan.Plan, test func(*testing.T, *monitor)) {
	t.Helper()
	for name, preview := range map[string]bool{"preview": true, "up": false} {
		t.Run(name, func(t *testing.T) { test(t, standUp(t, preview, p)) })
	}
}
