package workspace

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/certs"
	"trading-platform/engine/enginetest"
	"trading-platform/stack"
)

// initialised runs init of a stack of this clone with a fake CLI, which records its
// arguments and then runs a script.
type initialised struct {
	w    *Workspace
	log  string
	said []string
}

func newInit(t *testing.T, script string) *initialised {
	t.Helper()
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	i := &initialised{w: clone(t), log: filepath.Join(t.TempDir(), "log")}
	i.w.Root, i.w.Installed = root, true
	// The stack exists from its init on.
	made := filepath.Join(t.TempDir(), "made")
	i.w.Pulumi = executable(t, t.TempDir(), `echo "$@" >> `+i.log+"\n"+script+`
case "$*" in
*"stack init"*) : > `+made+`;;
*"stack export"*) [ -e `+made+` ] && echo '{"version": 3, "deployment": {}}' || { echo "error: no stack named 'base' found" >&2; exit 255; };;
esac`)
	stdin, err := os.Open(i.w.trackedFile("base")) // nobody to ask
	require.NoError(t, err)
	terminal := os.Stdin
	os.Stdin = stdin
	t.Cleanup(func() { os.Stdin = terminal; _ = stdin.Close() })
	return i
}

func (i *initialised) run(t *testing.T, stack string, e *enginetest.Engine) error {
	t.Helper()
	e.ID = "HERE"
	t.Setenv("DOCKER_HOST", e.Start(t))
	i.said = nil
	return i.w.Init(context.Background(), stack, false, func(line string) { i.said = append(i.said, line) })
}

func (i *initialised) text() string { return strings.Join(i.said, "\n") }

func TestInit(t *testing.T) {
	i := newInit(t, "")
	tracked := read(t, i.w.trackedFile("base"))
	require.NoError(t, i.run(t, "base", &enginetest.Engine{Registry: true}))
	file := i.w.StackFile("base")
	identity := stack.DefaultIdentity(i.w.Backend, "organization", "base")
	want := func(socket string) string {
		return `config: {trading-platform:profiles: [], trading-platform:engineApi: "1.41", trading-platform:provider: official,
			trading-platform:identity: "` + identity + `", trading-platform:engine: {id: HERE, host: "` + socket + `"}}`
	}
	assert.YAMLEq(t, want(os.Getenv("DOCKER_HOST")), read(t, file))
	info, err := os.Stat(file)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	assert.FileExists(t, i.w.passphraseFile())
	assert.Equal(t, tracked, read(t, i.w.trackedFile("base")), "the clone stays clean")
	assert.Contains(t, i.text(), "created a passphrase for the secrets in the state: "+i.w.passphraseFile())
	assert.Contains(t, i.text(), "stack base: its own settings and secrets are in "+file)
	assert.Contains(t, i.text(), "provider: official")
	assert.Contains(t, read(t, i.log), "stack init base --no-select")
	assert.Contains(t, read(t, i.log), "plugin install resource docker "+OfficialVersion)

	t.Run("again, with the registry down: the choices stay", func(t *testing.T) {
		passphrase := read(t, i.w.passphraseFile())
		require.NoError(t, os.Remove(i.log))
		require.NoError(t, i.run(t, "base", &enginetest.Engine{}))
		assert.YAMLEq(t, want(os.Getenv("DOCKER_HOST")), read(t, file), "and the way to the engine is the last one")
		assert.Empty(t, i.said, "nothing to say")
		assert.Equal(t, passphrase, read(t, i.w.passphraseFile()))
		assert.NotContains(t, read(t, i.log), "stack init")
	})
	t.Run("again, after the engine was upgraded: nothing is replaced unless the user asks", func(t *testing.T) {
		require.NoError(t, i.run(t, "base", &enginetest.Engine{API: "1.44"}))
		assert.YAMLEq(t, want(os.Getenv("DOCKER_HOST")), read(t, file))
		assert.Contains(t, i.text(), "the engine speaks API 1.44, and stack base is set up for 1.41")
		assert.Contains(t, i.text(), "pulumi config set -s base engineApi '1.44'")
	})
	t.Run("again, on another engine: refused, or moved on purpose", func(t *testing.T) {
		before := read(t, file)
		t.Setenv("DOCKER_HOST", (&enginetest.Engine{ID: "ELSEWHERE"}).Start(t))
		err := i.w.Init(context.Background(), "base", false, func(string) {})
		require.ErrorContains(t, err, "stack base runs on the engine at ")
		require.ErrorContains(t, err, "(ID ELSEWHERE)")
		assert.Equal(t, before, read(t, file))
		require.NoError(t, i.w.Init(context.Background(), "base", true, func(string) {}))
		assert.Contains(t, read(t, file), "id: ELSEWHERE")
		assert.Contains(t, read(t, i.log), "stack import -s base --force", "the state of the engine that was left is emptied")
	})
}

func TestInitOfAStackThatPlainPulumiMade(t *testing.T) {
	i := newInit(t, `case "$*" in
*"stack init"*) echo "error: stack 'base' already exists" >&2; exit 255;;
*" config -s base"*) echo "encryptionsalt: v1:from-state" >> "$2/Pulumi.base.yaml";;
esac`)
	require.NoError(t, i.run(t, "base", &enginetest.Engine{Registry: true}))
	assert.Contains(t, read(t, i.w.StackFile("base")), "encryptionsalt: v1:from-state", "its secrets can be read")
}

func TestInitOfASecuredStackMakesItsCertificatesAndSecrets(t *testing.T) {
	i := newInit(t, "")
	require.NoError(t, i.run(t, "mtls", &enginetest.Engine{Registry: true}))
	dir := i.w.CertsDir("mtls")
	assert.Contains(t, read(t, i.w.StackFile("mtls")), "trading-platform:certsDir: "+dir)
	assert.NoError(t, certs.Check(dir, certs.Options{Stack: "mtls", Names: []string{"localhost"}}))
	assert.FileExists(t, filepath.Join(dir, "clients", "admin.p12"))
	for _, variable := range []string{"POSTGRES_PASSWORD", "GF_SECURITY_ADMIN_PASSWORD", "WEB_CONSOLE_PASSWORD", "WEB_CONSOLE_USER"} {
		assert.Contains(t, read(t, i.log), "config set -s mtls --config-file "+i.w.StackFile("mtls")+" --secret "+variable+"\n",
			"the value is no argument, which others could see")
	}
}

func TestInitMakesClientCertificatesOnlyForProfilesThatNeedThem(t *testing.T) {
	i := newInit(t, "")
	require.NoError(t, i.run(t, "oauth2", &enginetest.Engine{Registry: true}))
	assert.FileExists(t, filepath.Join(i.w.CertsDir("oauth2"), "server.crt"))
	assert.NoDirExists(t, filepath.Join(i.w.CertsDir("oauth2"), "clients"))
}

func TestTheStacksOwnFileComesFromItselfWhenTheStateIsGone(t *testing.T) {
	i := newInit(t, "")
	// Since then the tracked file was edited: it no longer has the bindAddress.
	write(t, i.w.lastTracked("base"), "config: {trading-platform:profiles: [], trading-platform:bindAddress: 127.0.0.9}")
	write(t, i.w.StackFile("base"), "config: {trading-platform:profiles: [], trading-platform:bindAddress: 127.0.0.9, "+
		"trading-platform:provider: official, trading-platform:portOffset: 7}")
	require.NoError(t, i.run(t, "base", &enginetest.Engine{Registry: true}))
	assert.Contains(t, read(t, i.log), "stack init base")
	assert.YAMLEq(t, `config: {trading-platform:profiles: [], trading-platform:provider: official, trading-platform:portOffset: 7, trading-platform:engineApi: "1.41",
		trading-platform:identity: "`+stack.DefaultIdentity(i.w.Backend, "organization", "base")+`", trading-platform:engine: {id: HERE, host: "`+os.Getenv("DOCKER_HOST")+`"}}`,
		read(t, i.w.StackFile("base")))
}

// The stacks of one machine share a plugin's folder, and the init of one may replace the plugin during the up of another.
func TestAPluginIsReplacedAtomically(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plugins", "resource-docker-v1", "pulumi-resource-docker")
	require.NoError(t, replacePlugin(path, []byte("one")))
	replaced := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < 200 && err == nil; i++ {
			err = replacePlugin(path, []byte("another"))
		}
		replaced <- err
	}()
	for {
		select {
		case err := <-replaced:
			require.NoError(t, err)
			return
		default:
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.NotZero(t, info.Size())
			require.Equal(t, os.FileMode(0o755), info.Mode().Perm())
		}
	}
}
