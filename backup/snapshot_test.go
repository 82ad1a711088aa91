package backup

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The second copy finds every kind of change since the first, also one that leaves a file's size and time as they were.
func TestCopiesOfAVolumeThatChanges(t *testing.T) {
	dir := t.TempDir()
	here := strings.NewReplacer("/from/$key", dir+"/from/$key", `"/$key`, `"`+dir+`/to/$key`, "/tmp/", dir+"/scratch/")
	shell := func(script string) string {
		t.Helper()
		out, err := exec.Command("sh", "-c", script, "sh", "data", "other").CombinedOutput()
		require.NoError(t, err, "%s\n%s", script, out)
		return string(out)
	}
	in := func(folder, script string) string {
		t.Helper()
		return shell("cd " + filepath.Join(dir, folder) + "\n" + script)
	}
	shell("mkdir -p " + dir + "/scratch " + dir + "/from/data/base/1 " + dir + "/from/other " + dir + "/to/data " + dir + "/to/other")
	in("from/data", `chmod 700 . && echo one >kept && echo two >changed && echo three >"same size" && echo four >removed && echo five >base/1/moved && ln -s kept link && mkdir left && touch left/x
touch -d '1 hour ago' kept changed "same size" removed base/1/moved && sleep 3`)
	shell(here.Replace(copyLive))
	assert.FileExists(t, filepath.Join(dir, "to", "data", "base", "1", "moved"))
	in("from/data", `echo more >>changed && touch -r kept time && echo eerht >"same size" && touch -r time "same size" && rm -r removed left && mv base/1/moved base && mkdir -m 711 new && echo six >new/file && chmod 600 kept && ln -sf changed link`)
	in("from/other", "echo seven >only")
	shell(here.Replace(copyRest))
	const list = `find . -printf '%P %y %m %l\n' | sort; find . -type f | sort | xargs -d '\n' cat`
	assert.Equal(t, in("from", list), in("to", list))
	assert.Contains(t, in("to", list), "eerht")

	in("from/data", "echo eight >last")
	copied := filepath.Join(dir, "fork")
	shell("mkdir -p " + copied + "/data " + copied + "/other")
	here = strings.NewReplacer("/from/$key", dir+"/from/$key", `"/$key`, `"`+copied+`/$key`)
	shell(here.Replace(copyAll))
	assert.Equal(t, in("from", list), in("fork", list))
}
