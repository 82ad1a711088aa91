//go:build live

package tools

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whoever adds to the catalog edits nothing else: no test, no count, no list. Here a copy of the
// checkout gets a service with a port, a database and a probe, a profile with a service of its
// own, and a required variable that is a secret, and passes the unit tests as it is.
func TestAnEntryOfTheCatalogIsTheOnlyEdit(t *testing.T) {
	checkout := copyOfTheCheckout(t)
	for file, edit := range map[string][2]string{
		"apis.go": {"\t\t\tMetrics: Metrics{Component: \"orchestration\"},\n\t\t}),\n", `		api("risk_service", 8006, Service{
			About:   "limits that orders are checked against",
			After:   []string{"postgres", "signal_service"},
			Env:     join(database, fixed("SIGNAL_SERVICE_URL=${url:signal_service}"), optional("RISK_API_TOKEN")),
			Metrics: Metrics{Component: "risk"},
		}),
`},
		"catalog.go": {"\t{Name: \"manual\"},\n", "\t{Name: \"research\"},\n"},
		"workers.go": {"\t\tbacktestWorker(\"low\", \"workers\", \"backtest_low\"),\n", "\t\tbacktestWorker(\"research\", \"research\", \"backtest_research\"),\n"},
		"web.go":     {"\t\t\t\trequired(\"SESSION_ENCRYPTION_KEY\"),\n", "\t\t\t\trequired(\"AUTH_SIGNING_KEY\"),\n"},
	} {
		path := filepath.Join(checkout, "catalog", file)
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Contains(t, string(text), edit[0], file)
		require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(text), edit[0], edit[0]+edit[1], 1)), 0o600))
	}
	// As `make unit` does, without the race detector.
	cmd := exec.Command("sh", "-ec", `go generate ./catalog; go test -vet=off ./...`)
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
