//go:build official

package test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/blang/semver"
	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
	"github.com/pulumi/pulumi/sdk/v3/go/common/diag"
	"github.com/pulumi/pulumi/sdk/v3/go/common/diag/colors"
	plugins "github.com/pulumi/pulumi/sdk/v3/go/common/workspace"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/settings"
	"trading-platform/workspace"
)

func init() { provider, installPlugin = settings.Official, linkOfficial }

// linkOfficial finds the official plugin as Pulumi would for the person who runs the tests, and links to it.
func linkOfficial(folder string) error {
	version := semver.MustParse(workspace.OfficialVersion)
	quiet := diag.DefaultSink(os.Stderr, os.Stderr, diag.FormatOptions{Color: colors.Never})
	found, err := plugins.GetPluginPath(context.Background(), quiet, plugins.PluginDescriptor{Name: "docker", Kind: apitype.ResourcePlugin, Version: &version}, nil)
	if err != nil {
		return fmt.Errorf("the official docker plugin %[1]s is neither among Pulumi's plugins nor on PATH.\nFix: pulumi plugin install resource docker %[1]s", version)
	}
	folder = filepath.Join(folder, "resource-docker-v"+workspace.OfficialVersion)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	return os.Symlink(found, filepath.Join(folder, filepath.Base(found)))
}

// TestStacks takes every stack through its life with Pulumi's own docker plugin.
func TestStacks(t *testing.T) {
	for _, name := range []string{"base", "dev", "workers", "mtls", "oauth2", "manual"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t, name, nil)
			s.configure(s.logins())
			p := s.plan()
			step := func(what string, do func()) {
				started := time.Now()
				do()
				t.Logf("%-8s %-22s %5.1f s", name, what, time.Since(started).Seconds())
			}

			step("up", func() { s.up() })
			assertHealthy(t, s)
			step("preview", func() { s.unchanged("a preview after up") })

			before, edited := s.ids(), p.Services[len(p.Services)-1]
			s.configure(map[string]any{"serviceEnv": map[string]any{edited.Name: map[string]any{"EDITED": "once"}}})
			step("up with an edit", func() { s.up() })
			assert.Equal(t, []string{strings.TrimPrefix(edited.Containers[0], s.prefix+"_")}, s.replaced(before), "an edit of one variable")
			assertHealthy(t, s)
			s.unchanged("a preview after the edit")

			step("destroy", func() { s.destroy() })
			assert.Empty(t, s.names(), "containers after destroy")
			assert.Empty(t, s.networks(), "networks after destroy")
			assert.Len(t, s.volumes(), len(p.Volumes), "volumes after destroy")
		})
	}
}

// logins are the settings that a secured stack needs.
func (s *stack) logins() map[string]any {
	switch s.name {
	case "manual":
		return map[string]any{"env": secrets}
	case "mtls":
		return map[string]any{"env": secrets, "certsDir": makeCerts(s.t, time.Now())}
	case "oauth2":
		nginx := netip.MustParsePrefix(s.subnet).Addr().As4()
		nginx[3] = 77
		return map[string]any{
			"certsDir": makeCerts(s.t, time.Now()), "nginxAddress": netip.AddrFrom4(nginx).String(),
			"env": with(secrets, map[string]any{
				"AUTH0_DOMAIN": "https://login.example", "AUTH0_CLIENT_ID": "console", "AUTH0_CLIENT_SECRET": "only-in-this-test",
				"OAUTH2_ALLOWED_SUBS": "alice", "SESSION_ENCRYPTION_KEY": base64.StdEncoding.EncodeToString([]byte("thirty-two bytes of this one test"[:32])),
			}),
		}
	}
	return nil
}

// TestWhatThePluginLeavesOut shows what `platform up` adds to the plugin's errors.
func TestWhatThePluginLeavesOut(t *testing.T) {
	t.Parallel()
	l := newLive(t, prepareClone(t), map[string]any{"disabled": []string{"grafana", "prometheus"}})
	exits := testImage(t, "exits", references["promtail"], `ENTRYPOINT ["sh", "-c", "echo could not read the frobnicator; exit 3"]`)
	l.configure(map[string]any{"images": merged(images(), "promtail", exits)})
	first := l.start("up")
	up := said{err: <-first.done, out: first.out.String()} // the plugin waits longer than a command may that does not hang
	require.Error(t, up.err)
	assert.Contains(t, up.out, "failed to be in healthy state", "the plugin")
	assert.Equal(t, 1, strings.Count(up.out, "platform: "+l.prefix+"_promtail is "), up.out) // unhealthy, or restarting at that moment
	assert.Contains(t, up.out, "could not read the frobnicator", "the end of its log")
	assert.Contains(t, up.out, "Fix: docker logs "+l.prefix+"_promtail")

	home := t.TempDir() // whose Pulumi has no plugins
	up = l.platform("up", "PULUMI_HOME="+home)
	require.Error(t, up.err)
	assert.Contains(t, up.out, "the official docker plugin is not on this machine. Fix: pulumi plugin install resource docker "+workspace.OfficialVersion)
}

// TestWithoutThePlugin shows what the suite says on a machine that has no official plugin.
func TestWithoutThePlugin(t *testing.T) {
	t.Setenv("PULUMI_HOME", t.TempDir())
	t.Setenv("PATH", t.TempDir())
	err := linkOfficial(t.TempDir())
	require.EqualError(t, err, "the official docker plugin 4.11.2 is neither among Pulumi's plugins nor on PATH.\nFix: pulumi plugin install resource docker 4.11.2")
}
