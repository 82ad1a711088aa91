// Package tools holds tests of what builds, checks and releases the project.
package tools

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// pinned is an action by its commit, with the version that a reader knows it by.
var pinned = regexp.MustCompile(`^\S+@[0-9a-f]{40} # v[0-9]+\.[0-9]+\.[0-9]+$`)

func TestWorkflowsTrustNobody(t *testing.T) {
	files, err := filepath.Glob("../.github/workflows/*.yml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	pulumi, err := os.ReadFile("pulumi/go.mod")
	require.NoError(t, err)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			var workflow struct {
				Permissions map[string]string
				Jobs        map[string]struct {
					Permissions map[string]string
					Steps       []struct {
						Uses, Run string
						With      map[string]string
					}
				}
			}
			require.NoError(t, yaml.Unmarshal(text, &workflow))
			assert.Equal(t, map[string]string{"contents": "read"}, workflow.Permissions)
			assert.NotContains(t, string(text), "secrets.")
			for _, line := range strings.Split(string(text), "\n") {
				if _, uses, ok := strings.Cut(line, "uses: "); ok {
					assert.Regexp(t, pinned, uses)
				}
			}
			require.NotEmpty(t, workflow.Jobs)
			for name, job := range workflow.Jobs {
				for _, step := range job.Steps {
					// A title or a branch's name can be written by a stranger, and must not become a part of a script.
					assert.NotContains(t, step.Run, "${{", name)
					if strings.HasPrefix(step.Uses, "actions/checkout@") {
						assert.Equal(t, "false", step.With["persist-credentials"], "%s: the token stays out of the clone", name)
						assert.Empty(t, job.Permissions, "%s: code of the repository runs here, so nothing can be written", name)
					}
					if strings.HasPrefix(step.Uses, "pulumi/actions@") {
						assert.Contains(t, string(pulumi), "github.com/pulumi/pulumi/pkg/v3 v"+step.With["pulumi-version"]+" ", name)
					}
				}
			}
		})
	}
}
