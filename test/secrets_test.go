//go:build live

package test

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
)

// TestNoSecretInTheOpen gives every secret of a stack a value that can be recognised, lives the stack's life, and looks for
// those values wherever they could have come to lie.
func TestNoSecretInTheOpen(t *testing.T) {
	t.Parallel()
	clone := prepareClone(t)
	t.Run("in", func(t *testing.T) {
		for name, test := range map[string]struct {
			profiles []string
			secured  bool
			source   bool // its apps are built from a checkout
		}{
			"dev":                {profiles: []string{"dev"}, source: true},
			"workers and oauth2": {profiles: []string{"workers", "oauth2"}, secured: true},
			"mtls":               {profiles: []string{"mtls"}, secured: true},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				temp := t.TempDir()
				l := newLive(t, clone, map[string]any{
					"profiles": test.profiles, "AUTH0_DOMAIN": "login.example.com", "AUTH0_CLIENT_ID": "console", "WEB_CONSOLE_USER": "admin",
				})
				l.env = append(l.env, "TMPDIR="+temp, "PULUMI_DEBUG_COMMANDS=true")
				c := newCanaries(l)
				if test.source {
					l.configure(map[string]any{"sourceDir": newCheckout(t).dir})
				}
				if test.secured {
					dir := makeCerts(t, time.Now(), "alice")
					l.configure(map[string]any{"certsDir": dir})
					c.keys(dir)
				}
				c.look(temp)
			})
		}
	})
}

// canaries are values of secrets that occur nowhere else, by what they are the value of.
type canaries struct {
	*live
	values map[string]string
	find   map[string]string // what to look for: a part that no encoding changes
}

// newCanaries makes up a value for every secret that a user may set, in the stack's own terms.
func newCanaries(l *live) *canaries {
	c := &canaries{live: l, values: map[string]string{}, find: map[string]string{}}
	for _, name := range catalog.UserVariables() {
		if catalog.IsSecret(name, "") {
			c.find[name] = "canary" + l.prefix[len("tptest-"):] + strings.ReplaceAll(name, "_", "")
			c.values[name] = c.find[name] + "/with@signs"
		}
	}
	require.Greater(l.t, len(c.values), 10)
	key := base64.StdEncoding.EncodeToString([]byte("a canary that is 32 bytes" + l.prefix[len(l.prefix)-7:]))
	c.find["SESSION_ENCRYPTION_KEY"], c.values["SESSION_ENCRYPTION_KEY"] = key, key
	c.values["DATABASE_URL_DOCKER"] = "postgresql://trader:" + c.find["POSTGRES_PASSWORD"] + "%2Fwith%40signs@postgres:5432/trader?application_name=" + c.find["DATABASE_URL_DOCKER"]
	return c
}

// keys adds the private keys of a folder of certificates.
func (c *canaries) keys(dir string) {
	c.t.Helper()
	found := 0
	require.NoError(c.t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".key" {
			return err
		}
		text, err := os.ReadFile(path)
		c.find[filepath.Base(path)] = strings.Split(string(text), "\n")[2]
		found++
		return err
	}))
	require.GreaterOrEqual(c.t, found, 3, "of the authority, the server and a client")
}

// look has the stack come up and go, and looks at all that is left and said.
func (c *canaries) look(temp string) {
	t := c.t
	events := filepath.Join(t.(*testing.T).TempDir(), "events.json")
	c.must("init")
	set := []string{"pulumi", "config", "set-all", "-s", c.name}
	for _, name := range slices.Sorted(maps.Keys(c.values)) {
		set = append(set, "--secret", name+"="+c.values[name])
	}
	c.command(set...)

	sampler := c.sample(temp)
	printed := map[string]string{}
	printed["up"] = c.command("up", "-s", c.name, "--", "--event-log", events)
	for _, command := range []string{"plan", "status", "preview", "refresh", "doctor"} {
		printed[command] = c.command(command, "-s", c.name)
	}
	for _, command := range []string{"stack output --json", "stack export", "config", "stack history"} {
		printed[command] = c.command(append(append([]string{"pulumi"}, strings.Fields(command)...), "-s", c.name)...)
	}
	env := strings.Join(c.inspect("postgres").Config.Env, " ")
	assert.Contains(t, env, c.values["POSTGRES_PASSWORD"], "the container has it")
	saved := filepath.Join(c.dir, c.name+".backup.zip")
	printed["backup"] = c.command("backup", "-s", c.name, saved)

	for _, container := range c.containers() {
		printed["log of "+container.Names[0]] = c.logs(container.ID, "all")
		printed["arguments and labels of "+container.Names[0]] = fmt.Sprint(container.Command, container.Labels)
	}
	printed["an up that fails"] = c.failing()
	built := 0
	for _, service := range c.plan().Services {
		if build := service.Image.Build; build != nil {
			built++
			for _, command := range []string{"history --no-trunc", "image inspect"} {
				out, err := c.docker(append(strings.Fields(command), build.Name)...)
				require.NoError(t, err)
				printed["docker "+command+" "+build.Name] = out
			}
		}
	}
	assert.Equal(t, c.configured("sourceDir"), built > 0, "images were built")
	printed["down"] = c.command("down", "-s", c.name)
	sampler.stop()

	for what, text := range printed {
		c.absent(what, text)
	}
	for text := range sampler.seen {
		c.absent("a process' arguments", text)
	}
	assert.Greater(t, len(sampler.seen), 10, "processes were looked at")
	assert.Empty(t, sampler.open, "temporary files with a secret that others can read")
	c.inFiles(events, c.backend, temp, c.file(), shared)
	c.inBackup(saved)
}

// configured reports whether the stack's file has a key.
func (c *canaries) configured(key string) bool {
	text, err := os.ReadFile(c.file())
	require.NoError(c.t, err)
	return strings.Contains(string(text), ":"+key+":")
}

// failing makes an up fail with what a service with secrets last said.
func (c *canaries) failing() string {
	image := testImage(c.t, "tells", references["redis"], `ENTRYPOINT ["sh", "-c", "env; echo \"$@\"; exit 3"]`)
	c.configure(map[string]any{"images": merged(images(), "redis", image)})
	defer c.configure(map[string]any{"images": images()})
	up := c.platform("up")
	assert.Error(c.t, up.err)
	assert.Contains(c.t, up.out, "exited with code 3")
	return up.out
}

// command runs a platform command that must succeed, and gives what it printed.
func (c *canaries) command(args ...string) string {
	c.t.Helper()
	cmd := exec.Command(filepath.Join(c.dir, "bin", "platform"), args...)
	cmd.Dir, cmd.Env = c.dir, c.env
	out, err := cmd.CombinedOutput()
	require.NoError(c.t, err, "platform %s\n%s", args[0], out)
	return string(out)
}

// absent asserts that a text has none of the values.
func (c *canaries) absent(what, text string) {
	c.t.Helper()
	for name, value := range c.find {
		if at := strings.Index(text, value); at >= 0 {
			assert.Fail(c.t, "a secret in the open", "%s of %s:\n…%s…", name, what, text[max(0, at-200):min(len(text), at+len(value)+50)])
		}
	}
}

// inFiles asserts that the files, and those in the folders, have none of the values, and that others can read none but the
// first of those that hold the encrypted ones.
func (c *canaries) inFiles(places ...string) {
	c.t.Helper()
	count := 0
	for _, place := range places {
		require.NoError(c.t, filepath.WalkDir(place, func(path string, entry fs.DirEntry, err error) error {
			var text []byte
			if err == nil && entry.Type().IsRegular() && entry.Name() != "pulumi-resource-docker" {
				text, err = os.ReadFile(path)
			}
			if errors.Is(err, fs.ErrNotExist) && path != place {
				return nil // a file of a test beside this one, in the folder that all share
			}
			if err != nil || text == nil {
				return err
			}
			count++
			c.absent(path, string(text))
			if path == places[0] { // where the user put it
				return nil
			}
			if bytes.Contains(text, []byte(`secure: v1:`)) || bytes.Contains(text, []byte(`"ciphertext"`)) || strings.HasSuffix(path, "passphrase") {
				assert.False(c.t, readable(path, place), "%s can be read by others", path)
			}
			return nil
		}))
	}
	assert.Greater(c.t, count, 5, "state, history, settings and events were looked at")
}

// readable reports whether others can read a file, by its mode and those of the folders up to a place.
func readable(path, place string) bool {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o077 == 0 {
		return false
	}
	for dir := filepath.Dir(path); strings.HasPrefix(dir, place); dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm()&0o077 == 0 {
			return false
		}
	}
	return true
}

// inBackup looks into a backup. What a database keeps of passwords is hashed.
func (c *canaries) inBackup(file string) {
	c.t.Helper()
	info, err := os.Stat(file)
	require.NoError(c.t, err)
	assert.Equal(c.t, os.FileMode(0o600), info.Mode().Perm(), file)
	archive, err := zip.OpenReader(file)
	require.NoError(c.t, err)
	defer func() { _ = archive.Close() }()
	assert.NotEmpty(c.t, archive.File)
	for _, member := range archive.File {
		r, err := member.Open()
		require.NoError(c.t, err)
		text, err := io.ReadAll(r)
		require.NoError(c.t, err)
		c.absent(file+": "+member.Name, string(text))
	}
}

// sampler looks at the processes of this host, and at temporary files, again and again.
type sampler struct {
	seen map[string]bool // command lines
	open map[string]bool // files with a value that others can read
	done chan struct{}
	wait sync.WaitGroup
}

func (c *canaries) sample(temp string) *sampler {
	s := &sampler{seen: map[string]bool{}, open: map[string]bool{}, done: make(chan struct{})}
	s.wait.Go(func() {
		for {
			files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, file := range files {
				if text, err := os.ReadFile(file); err == nil {
					s.seen[strings.ReplaceAll(string(text), "\x00", " ")] = true
				}
			}
			_ = filepath.WalkDir(temp, func(path string, entry fs.DirEntry, err error) error {
				if err == nil && entry.Type().IsRegular() && readable(path, temp) {
					if text, err := os.ReadFile(path); err == nil && c.holds(text) {
						s.open[path] = true
					}
				}
				return nil // files come and go
			})
			select {
			case <-s.done:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	return s
}

func (s *sampler) stop() {
	close(s.done)
	s.wait.Wait()
}

// holds reports whether a text has one of the values.
func (c *canaries) holds(text []byte) bool {
	for _, value := range c.find {
		if bytes.Contains(text, []byte(value)) {
			return true
		}
	}
	return false
}
