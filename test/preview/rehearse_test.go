//go:build live

package preview

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"trading-platform/airgap"
	"trading-platform/catalog/catalogtest"
	"trading-platform/review"
	"trading-platform/settings"
)

// offline makes a stack's tracked file, and a commit of it, one for air-gap images, with less in it.
func (c *clone) offline(stack string, disabled ...string) {
	c.t.Helper()
	references, err := airgap.References(root)
	require.NoError(c.t, err)
	images := map[string]string{settings.Reference: references[settings.Reference]}
	for _, service := range []string{"postgres", "redis", "prometheus", "loki_server", "promtail"} {
		images[service] = references[service]
	}
	file := filepath.Join(c.dir, "Pulumi."+stack+".yaml")
	text, err := os.ReadFile(file)
	require.NoError(c.t, err)
	var config map[string]map[string]any
	require.NoError(c.t, yaml.Unmarshal(text, &config))
	for key, value := range map[string]any{"provider": settings.Offline, "images": images, "disabled": append(disabled, "grafana")} {
		config["config"][settings.Project+":"+key] = value
	}
	text, err = yaml.Marshal(config)
	require.NoError(c.t, err)
	require.NoError(c.t, os.WriteFile(file, text, 0o600))
	c.commit("On air-gap images")
}

// noStacks is the environment of a user who has no stack of the project.
func noStacks(t *testing.T) []string {
	t.Helper()
	home := t.TempDir()
	return []string{"PULUMI_HOME=" + home, "PULUMI_BACKEND_URL=file://" + home}
}

// rehearse runs a rehearsal of the last commit.
func (c *clone) rehearse(stack string, code int) review.Rehearsal {
	c.t.Helper()
	before := c.state()
	out, said, got := c.run(noStacks(c.t), "rehearse", "-s", stack, "--base", "HEAD^", "-o", "json")
	require.Equal(c.t, code, got, "%s%s", out, said)
	assert.Equal(c.t, before, c.state(), "the work tree or the index was touched")
	assertNothingLeft(c.t)
	var report review.Report
	require.NoError(c.t, json.Unmarshal([]byte(out), &report))
	require.NotNil(c.t, report.Rehearsal)
	return *report.Rehearsal
}

// assertNothingLeft asserts that no rehearsal has left anything on the engine or on this machine.
func assertNothingLeft(t *testing.T) {
	t.Helper()
	assert.Empty(t, onEngine(t, "rehearsal-"))
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	left, _ := os.ReadDir(filepath.Join(cache, "trading-platform", "rehearsals"))
	assert.Empty(t, left)
}

// of returns what was measured of a service.
func of(s review.Step, service string) review.Measured {
	return s.Services[slices.IndexFunc(s.Services, func(m review.Measured) bool { return m.Service == service })]
}

// small is what the short rehearsals leave out of the stack base.
var small = catalogtest.BaseWithout("postgres", "redis", "prometheus")

// What is predicted is what happens, there and back.
func TestARehearsalOfAPort(t *testing.T) {
	c := newClone(t)
	c.offline("base", small...)
	branches["one port"].edit(c)
	c.commit("Another port")
	r := c.rehearse("base", 0)
	assert.Empty(t, r.Findings)
	for _, step := range []review.Step{r.Forward, r.Back} {
		assert.Empty(t, step.Failed)
		assert.Equal(t, []string{"prometheus"}, step.Order)
		m := of(step, "prometheus")
		assert.Equal(t, "replaced", m.Measured)
		assert.Positive(t, m.Outage)
		assert.Positive(t, m.FailedCalls)
		assert.Positive(t, m.ImageAfter)
		postgres := of(step, "postgres")
		assert.Equal(t, "kept", postgres.Measured)
		assert.Positive(t, postgres.Calls)
		assert.Equal(t, []review.Count{
			{Name: "entries of Redis' lists", Before: 50, After: 50}, {Name: "keys of Redis", Before: 201, After: 201}, {Name: "rows of PostgreSQL", Before: 5050, After: 5050},
		}, step.Data)
	}
}

// A killed rehearsal is removed by the next, which measures that a change loses data.
func TestARehearsalOfAVolumeAfterAKilledOne(t *testing.T) {
	c := newClone(t)
	c.offline("base", small...)
	branches["a volume that nobody mounts"].edit(c)
	c.commit("Redis without a volume")
	for _, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		cmd := exec.Command(platform, "rehearse", "-s", "base", "--base", "HEAD^")
		cmd.Dir, cmd.Env = c.dir, append(os.Environ(), noStacks(t)...)
		var said strings.Builder
		cmd.Stderr = &said
		require.NoError(t, cmd.Start())
		require.Eventually(t, func() bool { return len(onEngine(t, "rehearsal-")) > 1 }, 5*time.Minute, 100*time.Millisecond, "a container or network")
		require.NoError(t, cmd.Process.Signal(end))
		require.Error(t, cmd.Wait())
		if end == syscall.SIGTERM {
			assertNothingLeft(t)
		} else {
			assert.NotEmpty(t, onEngine(t, "rehearsal-"))
		}
	}
	r := c.rehearse("base", 2)
	assert.Equal(t, []review.Finding{
		{Severity: review.DataAtRisk, Subject: "entries of Redis' lists", Text: "50 before, 0 after"},
		{Severity: review.DataAtRisk, Subject: "keys of Redis", Text: "201 before, 0 after"},
	}, r.Findings[:2])
	assert.Equal(t, "replaced", of(r.Forward, "redis").Measured)
}

// TestRehearsalsOfTenBranches rehearses the ten branches on the dev stack, which takes half an hour, and prints the table of docs/rehearse.md:
//
//	REHEARSE=all go test -tags live ./test/preview -run TestRehearsalsOfTenBranches -v -timeout 90m
func TestRehearsalsOfTenBranches(t *testing.T) {
	table := "| branch | exit code | up there, back | replaced | longest outage | failed calls | findings |\n|---|---:|---|---|---|---:|---|\n"
	names := []string{"one port", "an image", "a volume that nobody mounts", "a service", "an edge", "a variable less", "a secret", "another subnet", "a broken probe", "another prefix"}
	for _, name := range names {
		require.Contains(t, branches, name)
	}
	if os.Getenv("REHEARSE") != "all" {
		return // the tests above rehearse two of them
	}
	for _, name := range names {
		c := newClone(t)
		c.offline("dev")
		branches[name].edit(c)
		if name == "an image" { // that of the catalog is not on this engine
			references, err := airgap.References(root)
			require.NoError(t, err)
			build := exec.Command("docker", "build", "-q", "-t", "rehearsal-image/prometheus:2", "-")
			build.Stdin = strings.NewReader("FROM " + references["prometheus"] + "\nLABEL another=image\n")
			require.NoError(t, build.Run())
			t.Cleanup(func() { _ = exec.Command("docker", "rmi", "rehearsal-image/prometheus:2").Run() })
			c.replace("Pulumi.dev.yaml", references["prometheus"], "rehearsal-image/prometheus:2")
		}
		c.commit(name)
		out, said, code := c.run(noStacks(c.t), "rehearse", "-s", "dev", "--base", "HEAD^", "-o", "json")
		var report review.Report
		if !assert.NoError(t, json.Unmarshal([]byte(out), &report), "%s: %s", name, said) {
			continue
		}
		r := report.Rehearsal
		var replaced, findings []string
		longest, failed := review.Measured{}, 0
		for _, m := range r.Forward.Services {
			if m.Measured != "kept" {
				replaced = append(replaced, m.Service+" "+m.Measured)
			}
			if failed += m.FailedCalls; m.Outage > longest.Outage {
				longest = m
			}
		}
		if len(replaced) > 4 {
			replaced = []string{fmt.Sprintf("%d services", len(replaced))}
		}
		for _, f := range r.Findings {
			findings = append(findings, map[bool]string{true: "back: "}[f.Back]+f.Subject+" "+f.Text)
		}
		table += fmt.Sprintf("| %s | %d | %.1f s, %.1f s | %s | %.1f s (%s) | %d | %s |\n", name, code, r.Forward.Up, r.Back.Up,
			strings.Join(replaced, ", "), longest.Outage, longest.Service, failed, strings.Join(findings, "<br>"))
		t.Log("\n" + table)
	}
	assertNothingLeft(t)
}
