package infra

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The tests in this file check the files with the programs that read them, in the versions of Debian 12: Prometheus 2.42
// and nginx 1.22. They are older than those of the stack, which accept the same files.

// run starts a program that Debian has, and returns all that it printed.
func run(t *testing.T, debianPackage, program string, args ...string) (string, error) {
	t.Helper()
	place, err := exec.LookPath(program)
	require.NoError(t, err, "this test needs %s: apt-get install -y --no-install-recommends %s", program, debianPackage)
	out, err := exec.Command(place, args...).CombinedOutput()
	return string(out), err
}

func TestPromtoolAcceptsTheConfiguration(t *testing.T) {
	for name, c := range cases() {
		if c.service != "prometheus" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			files, err := Files(c.service, c.values)
			require.NoError(t, err)
			folder := t.TempDir()
			write(t, folder, files)
			out, err := run(t, "prometheus", "promtool", "check", "config", "--syntax-only", filepath.Join(folder, "/etc/prometheus/prometheus.yml"))
			assert.NoError(t, err, out)
		})
	}
}

// rendered returns a folder with Prometheus' files as its container has them.
func rendered(t *testing.T) string {
	t.Helper()
	files, err := Files("prometheus", full())
	require.NoError(t, err)
	folder := t.TempDir()
	write(t, folder, files)
	return folder
}

func TestPromtoolAcceptsTheRules(t *testing.T) {
	rules, err := filepath.Glob(filepath.Join(rendered(t), "etc/prometheus/rules/*.yml"))
	require.NoError(t, err)
	require.NotEmpty(t, rules)
	out, err := run(t, "prometheus", "promtool", append([]string{"check", "rules", "--lint=all", "--lint-fatal"}, rules...)...)
	assert.NoError(t, err, out)
}

// Every alert fires when it should, and stays quiet in a healthy stack: testdata/rules_test.yml says when.
func TestAlertsFire(t *testing.T) {
	tests, err := os.ReadFile("testdata/rules_test.yml")
	require.NoError(t, err)
	folder := rendered(t)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "rules_test.yml"), tests, 0o600))
	out, err := run(t, "prometheus", "promtool", "test", "rules", filepath.Join(folder, "rules_test.yml"))
	assert.NoError(t, err, out)
	for _, alert := range alertNames(t) {
		assert.Contains(t, string(tests), `{alertname="`+alert+`"}`, "testdata/rules_test.yml does not test %s", alert)
	}
}

func TestNginxAcceptsTheConfiguration(t *testing.T) {
	for name, c := range cases() {
		if c.service != "nginx" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			place := newProxy(t, c.values.Service, c.values.Nginx)
			out, err := run(t, "nginx-light", "nginx", place.arguments("-t")...)
			require.NoError(t, err, out)
			assert.NotContains(t, out, "[warn]")
		})
	}
}
