package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReport(t *testing.T) {
	r := newReport([]*side{{name: "ours"}, {name: "v5.6.0-old"}})
	for _, seconds := range []float64{12, 10, 30, 16} {
		r.add("ours", "cold up", cost{seconds: seconds, cpu: 2, engine: 1, memory: 3 << 20})
		r.add("v5.6.0-old", "cold up", cost{seconds: 2 * seconds})
	}
	r.watched["ours"] = running{Inside: 0.125, Around: 0.01, Failed: 19, Hung: 61}
	path := filepath.Join(t.TempDir(), "performance")
	require.NoError(t, r.write(path))

	page, err := os.ReadFile(path + ".md")
	require.NoError(t, err)
	assert.Contains(t, string(page), "| cold up | 14.0 s (10.0–30.0) | 28.0 s (20.0–60.0) |")
	assert.Contains(t, string(page), "| cold up | 1.00 | 0.50 |")
	assert.Contains(t, string(page), "| cold up | 2.0 + 1.0 s, 3 MiB |")
	assert.Contains(t, string(page), "| this program | 12.5 % | 1.0 % | 19 s | 61 s |")
	samples, err := os.ReadFile(path + ".txt")
	require.NoError(t, err)
	assert.Contains(t, string(samples), "\nBenchmarkStack/step=cold_up/side=ours 1 12.000 sec/op 2.000 cpu-sec/op 1.000 engine-cpu-sec/op 3145728 peak-B/op\n")

	chart, err := os.ReadFile(path + ".svg")
	require.NoError(t, err)
	for d := xml.NewDecoder(strings.NewReader(string(chart))); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
	}
}

func TestProcesses(t *testing.T) {
	me := os.Getpid()
	assert.Equal(t, os.Getppid(), look(me).parent)
	assert.Greater(t, look(me).memory, 1e6)
	assert.Contains(t, named(look(me).name), me)
	cmd := exec.Command("sleep", "60")
	require.NoError(t, cmd.Start())
	assert.Equal(t, []int{me, cmd.Process.Pid}, below(me))
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
}
