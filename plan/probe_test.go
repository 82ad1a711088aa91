package plan_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestProbeMakesSeveralChecks runs a probe in a shell, with a check that answers from a list, and a sleep that only moves the clock.
func TestProbeMakesSeveralChecks(t *testing.T) {
	for name, test := range map[string]struct {
		before  bool   // the probe before this one has succeeded
		failed  string // a character for each failed probe since the last success
		answers string // y or n for each check; the last one is repeated
		ok      bool
		checks  int
		sleeps  string
		output  string
	}{
		"it is healthy at once":        {false, "-", "y", true, 1, "", ""},
		"it becomes healthy":           {false, "-", "nny", true, 3, ".1 .1 ", ""},
		"it does not become healthy":   {false, "-", "n", false, 5, ".1 .1 .2 .2 .4 ", "check 5\n"},
		"it stays healthy":             {true, "", "y", true, 4, "15 15 15 15 ", "check 1\ncheck 2\ncheck 3\ncheck 4\n"},
		"it is no longer healthy":      {true, "", "yn", false, 2, "15 15 ", "check 1\ncheck 2\n"},
		"it is down after it was well": {true, "", "n", false, 1, "15 ", "check 1\n"},
		"it stays down":                {false, "...", "n", false, 1, "3 ", "check 1\n"},
		"it has been down for long":    {false, strings.Repeat(".", 15), "n", false, 1, "15 ", "check 1\n"},
		"it recovers":                  {false, "...", "y", true, 1, "", "check 1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(name, text string) {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700))
			}
			write("uptime", "100.75 7.5\n")
			write("answers", test.answers)
			write("sleep", `#!/bin/sh
printf '%s ' $1 >>sleeps; read -r now _ <uptime; echo $((${now%.*} + 1)).00 7.5 >uptime`)
			write("timeout", `#!/bin/sh
echo >>checks; n=$(($(wc -l <checks))); echo check $n; read -r all <answers || :
[ $n -le ${#all} ] || n=${#all}; [ "$(printf %s "$all" | cut -c $n)" = y ]`)
			if test.before {
				write("healthy", "")
			}
			if test.failed != "-" { // it was healthy at least once
				write("failures", test.failed)
			}
			line := service(t, resolve(t, config{}), "prometheus").Probe.Test[1]
			cmd := exec.Command("sh", "-c", strings.NewReplacer("/dev/shm", dir, "/proc", dir).Replace(line))
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
			output, err := cmd.Output()
			read := func(name string) string {
				text, err := os.ReadFile(filepath.Join(dir, name))
				if !os.IsNotExist(err) {
					require.NoError(t, err)
				}
				return string(text)
			}
			assert.Equal(t, test.ok, err == nil)
			assert.Len(t, read("checks"), test.checks)
			assert.Equal(t, test.sleeps, read("sleeps"))
			assert.Equal(t, test.output, string(output), "of earlier checks nothing is shown if a service is starting")
			_, err = os.Stat(filepath.Join(dir, "healthy"))
			assert.Equal(t, test.ok, err == nil, "the next probe knows of a success only")
		})
	}
}
