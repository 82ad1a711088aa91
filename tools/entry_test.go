//go:build live

package tools

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whoever adds to the catalog edits nothing else: no test, no count, no list. Here a copy of the checkout gets every
// change of the guide: a service, variables, a volume and a profile. It then passes the unit tests as it is.
func TestAnEntryOfTheCatalogIsTheOnlyEdit(t *testing.T) {
	checkout := copyOfTheCheckout(t)
	guide, err := os.ReadFile("../docs/guides/change-the-stack.md")
	require.NoError(t, err)
	patches := regexp.MustCompile("(?s)```diff\n(.*?)```").FindAllStringSubmatch(string(guide), -1)
	require.GreaterOrEqual(t, len(patches), 5)
	for _, patch := range patches {
		cmd := exec.Command("git", "apply", "--recount", "-")
		cmd.Dir, cmd.Stdin = checkout, strings.NewReader(patch[1])
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s%s", patch[1], out)
	}
	// As `make unit` does, without the race detector.
	cmd := exec.Command("sh", "-ec", `test -z "$(gofmt -l catalog)"; go generate ./catalog; go test -vet=off ./...`)
	cmd.Dir = checkout
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// copyOfTheCheckout copies the files that are in git or could be added to it.
func copyOfTheCheckout(t *testing.T) string {
	t.Helper()
	copied := t.TempDir()
	cmd := exec.Command("sh", "-ec", `git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --ignore-failed-read -cf - | tar -xf - -C "$1"`, "sh", copied)
	cmd.Dir = ".."
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return copied
}
