package provider

import (
	"strings"
	"testing"

	p "github.com/pulumi/pulumi-go-provider"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCheckReportsFaults(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		token  string
		inputs map[string]any
		want   []string
	}{
		"everything missing": {containerToken, map[string]any{"wait": true}, []string{"name is required", "image is required"}},
		"what the subset does not serve, all of it": {
			containerToken,
			map[string]any{"name": "a", "image": "b", "wait": true, "privileged": true, "dns": []any{"1.1.1.1"}, "restart": "sometimes"},
			[]string{"privileged is not served", "dns is not served", `restart "sometimes" must be`},
		},
		"nested names": {
			containerToken,
			map[string]any{"name": "a", "image": "b", "wait": true, "healthcheck": map[string]any{"interval": "1s", "tries": 3}},
			[]string{"healthcheck.tests is required", "healthcheck.tries is not served"},
		},
		"names in lists": {
			containerToken,
			map[string]any{"name": "a", "image": "b", "wait": true, "ports": []any{map[string]any{"internal": 80, "range": 2}}},
			[]string{"ports[0].range is not served"},
		},
		"a wrong type, without its value": {
			containerToken, map[string]any{"name": "a", "image": "b", "wait": true, "memory": secret("hunter2")}, []string{"memory must be a whole number"},
		},
		"a duration": {
			containerToken,
			map[string]any{"name": "a", "image": "b", "wait": true, "healthcheck": map[string]any{"tests": []any{"NONE"}, "interval": "90"}},
			[]string{"healthcheck.interval must be a duration such as 30s"},
		},
		"ports, volumes, addresses": {
			containerToken,
			map[string]any{
				"name": "a", "image": "b",
				"ports":            []any{map[string]any{"internal": 70000}, map[string]any{"internal": 80, "ip": "localhost"}},
				"volumes":          []any{map[string]any{"containerPath": "/data"}},
				"networksAdvanced": []any{map[string]any{"name": "n", "ipv4Address": "10.0.0"}},
				"uploads":          []any{map[string]any{"file": "/f", "permissions": "rw"}},
			},
			[]string{
				"70000/tcp is not a valid port", "ports: ParseAddr", "/data takes either volumeName or hostPath",
				"networksAdvanced: n:", "either wait or attach must be true", `permissions "rw" must be octal`,
			},
		},
		"a network's addresses": {
			networkToken, map[string]any{"name": "n", "ipamConfigs": []any{map[string]any{"subnet": "10.0.0.0"}}}, []string{"ipamConfigs[0].subnet"},
		},
		"a network's gateway": {
			networkToken, map[string]any{"name": "n", "ipamConfigs": []any{map[string]any{"subnet": "10.0.0.0/8", "gateway": "10.0.0.1"}}},
			[]string{"ipamConfigs[0].gateway is not served"},
		},
		"an image's name, and that it would be removed": {
			remoteImageToken, map[string]any{"name": "UPPER:1"}, []string{`name "UPPER:1"`, "keepLocally must be true"},
		},
		"pushes and builds in previews": {
			imageType,
			map[string]any{"imageName": "a", "buildOnPreview": true, "build": map[string]any{"context": "/does/not/exist", "dockerfile": "Dockerfile"}},
			[]string{"buildOnPreview must be false", "/does/not/exist is not a folder"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := reasons(t, withEngine(t, nil), c.token, c.inputs)
			for _, want := range c.want {
				assert.Contains(t, got, want)
			}
			assert.Len(t, strings.Split(got, "\n"), len(c.want), got)
			assert.NotContains(t, got, "hunter2")
		})
	}
}

func TestCheckAcceptsWhatIsNotKnownYet(t *testing.T) {
	t.Parallel()
	got := reasons(t, withEngine(t, nil), containerToken, map[string]any{
		"name": "a", "image": unknown, "envs": []any{unknown, "A=1"},
		"networksAdvanced": []any{map[string]any{"name": unknown, "aliases": []any{"a"}}},
		"uploads":          []any{map[string]any{"file": "/f", "content": unknown}},
	})
	assert.Empty(t, got)
}

func TestUnknownTypeNamesTheOfficialPlugin(t *testing.T) {
	t.Parallel()
	_, err := withEngine(t, nil).Check(p.CheckRequest{Urn: urnOf("docker:index/plugin:Plugin")})
	require.ErrorContains(t, err, "docker:index/plugin:Plugin is not served by the offline docker provider")
}

func TestCheckConfig(t *testing.T) {
	t.Parallel()
	resp, err := withEngine(t, nil).CheckConfig(p.CheckRequest{Inputs: properties(map[string]any{
		"host": "unix:///x.sock", "version": "4.11.3-offline.1", "sshOpts": []any{"-4"},
	})})
	require.NoError(t, err)
	require.Len(t, resp.Failures, 1)
	assert.Contains(t, resp.Failures[0].Reason, "sshOpts is not served")
}
