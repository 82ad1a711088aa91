package stack_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/certs"
	"trading-platform/fault"
	"trading-platform/settings"
	"trading-platform/stack"
)

func source(config map[string]string) settings.Source {
	return settings.Source{Stack: "mtls", Root: "/clone", Config: config}
}

// secured is a config of the mtls stack that lacks only its certificates.
func secured() map[string]string {
	return map[string]string{
		"profiles": `["mtls"]`, "POSTGRES_PASSWORD": "a", "GF_SECURITY_ADMIN_PASSWORD": "b", "WEB_CONSOLE_USER": "c", "WEB_CONSOLE_PASSWORD": "d",
	}
}

func TestResolve(t *testing.T) {
	p, set, err := stack.Resolve(source(map[string]string{"namePrefix": "blue"}))
	require.NoError(t, err)
	assert.Equal(t, "blue", set.NamePrefix)
	assert.Len(t, p.Services, 6)
}

func TestFaultsOfSettingsPlanAndCertificatesComeTogether(t *testing.T) {
	config := secured()
	delete(config, "WEB_CONSOLE_PASSWORD")
	config["portOfset"] = "1"
	p, set, err := stack.Resolve(source(config))
	require.NotNil(t, p, "a plan comes with its faults, as far as it goes")
	require.NotNil(t, set)
	var list fault.List
	require.ErrorAs(t, err, &list)
	var where []string
	for _, f := range list {
		where = append(where, strings.TrimPrefix(f.Where, "trading-platform:"))
	}
	assert.Equal(t, []string{"portOfset", "certsDir", "WEB_CONSOLE_PASSWORD"}, where)
}

func TestNeedsCerts(t *testing.T) {
	for name, test := range map[string]struct {
		config map[string]string
		want   bool
	}{
		"base":           {nil, false},
		"dev":            {map[string]string{"profiles": `["dev","workers","manual"]`}, false},
		"mtls":           {map[string]string{"profiles": `["mtls"]`}, true},
		"oauth2":         {map[string]string{"profiles": `["oauth2"]`}, true},
		"nginx disabled": {map[string]string{"profiles": `["mtls"]`, "disabled": `["nginx_mtls"]`}, false},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := settings.Load(source(test.config))
			require.NoError(t, err)
			assert.Equal(t, test.want, stack.NeedsCerts(set))
		})
	}
}

func TestCertificates(t *testing.T) {
	t.Run("no folder", func(t *testing.T) {
		_, _, err := stack.Resolve(source(secured()))
		require.EqualError(t, err, `One thing is wrong, and nothing was changed:
  1. trading-platform:certsDir: nginx needs certificates, but the stack has no folder with certificates
     Fix: platform init -s mtls, or: pulumi config set -s mtls certsDir <folder> && platform certs -s mtls`)
	})
	t.Run("an empty folder", func(t *testing.T) {
		config := secured()
		config["certsDir"] = t.TempDir()
		_, _, err := stack.Resolve(source(config))
		require.ErrorContains(t, err, "server.crt: it is missing")
		require.ErrorContains(t, err, "ca.crt: it is missing")
		require.ErrorContains(t, err, "platform certs -s mtls")
	})
	t.Run("good ones are in the plan, as secrets", func(t *testing.T) {
		config := secured()
		config["certsDir"] = t.TempDir()
		set, err := settings.Load(source(config))
		require.NoError(t, err)
		_, err = certs.Ensure(config["certsDir"], certs.Options{Stack: "mtls", Names: set.ServerNames()})
		require.NoError(t, err)
		p, _, err := stack.Resolve(source(config))
		require.NoError(t, err)
		nginx, _ := p.Lookup("nginx_mtls")
		var files []string
		for _, f := range nginx.Files {
			if strings.HasPrefix(f.Path, "/etc/nginx/certs/") {
				files = append(files, f.Path)
				assert.True(t, f.Secret, f.Path)
				assert.Contains(t, f.Content, "-----BEGIN ", f.Path)
			}
		}
		assert.Len(t, files, 4)
	})
}
