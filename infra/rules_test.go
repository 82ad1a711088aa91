package infra

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

type rule struct {
	Alert       string
	Record      string
	Labels      map[string]string
	Annotations map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	files, err := Files("prometheus", full())
	require.NoError(t, err)
	var all []rule
	for name, text := range files {
		if filepath.Dir(name) != "/etc/prometheus/rules" {
			continue
		}
		var file struct {
			Groups []struct{ Rules []rule }
		}
		require.NoError(t, yaml.Unmarshal([]byte(text), &file), name)
		for _, group := range file.Groups {
			all = append(all, slices.DeleteFunc(group.Rules, func(r rule) bool { return r.Record != "" })...)
		}
	}
	require.NotEmpty(t, all)
	return all
}

func alertNames(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, r := range rules(t) {
		names = append(names, r.Alert)
	}
	return names
}

func TestEveryAlertIsDescribedAndHasARunbook(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rules(t) {
		assert.NotEmpty(t, r.Alert)
		assert.False(t, seen[r.Alert], "%s is defined twice", r.Alert)
		seen[r.Alert] = true
		assert.Contains(t, []string{"warning", "critical"}, r.Labels["severity"], r.Alert)
		assert.NotEmpty(t, r.Annotations["summary"], r.Alert)
		assert.NotEmpty(t, r.Annotations["description"], r.Alert)
		assert.Equal(t, "docs/runbooks/"+r.Alert+".md", r.Annotations["runbook"])
		text, err := os.ReadFile("../docs/runbooks/" + r.Alert + ".md")
		require.NoError(t, err)
		for _, part := range []string{"# " + r.Alert + "\n", "\n## What it means\n", "\n## What to do\n"} {
			assert.Contains(t, string(text), part, r.Alert)
		}
	}
	files, err := os.ReadDir("../docs/runbooks")
	require.NoError(t, err)
	for _, f := range files {
		assert.True(t, seen[strings.TrimSuffix(f.Name(), ".md")], "docs/runbooks/%s is of no alert", f.Name())
	}
}
