package tools

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A stub.go replaces its package, and a file of another name leaves the package's other files in place.
func TestCompileReplacesPackages(t *testing.T) {
	version, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "golang.org/x/sync").Output()
	require.NoError(t, err)
	sums, err := os.ReadFile("../go.sum")
	require.NoError(t, err)
	module := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module compiled\n\ngo 1.26.0\n\nrequire (\n\tgolang.org/x/sync " + strings.TrimSpace(string(version)) + "\n)\n",
		"go.sum": string(sums),
		"stubs.txtar": `A comment.

-- golang.org/x/sync/errgroup/stub.go --
package errgroup

const Stub = "a package"

-- golang.org/x/sync/semaphore/more.go --
package semaphore

const More = " and a file"

-- golang.org/x/sync/program/stub.go --
package main

import (
	"os"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

func main() {
	_ = semaphore.NewWeighted
	_, _ = os.Stdout.WriteString(errgroup.Stub + semaphore.More)
}
`,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(module, name), []byte(text), 0o600))
	}
	program := filepath.Join(t.TempDir(), "program")
	out, err := exec.Command("./compile", module, program, "golang.org/x/sync/program").CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.Command(program).CombinedOutput()
	require.NoError(t, err)
	assert.Equal(t, "a package and a file", string(out))
}
