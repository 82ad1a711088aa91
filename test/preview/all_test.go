//go:build live

package preview

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
	"trading-platform/workspace"
)

func TestEveryStackIsPreviewedAndNothingIsLeft(t *testing.T) {
	// As with stacks that are up: ports at the offset that a preview tries first are taken. Those without an offset are
	// left alone: a stack of a user's may want them meanwhile.
	for _, s := range catalog.Services() {
		for _, p := range s.Ports {
			if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(12137+p.Host))); err == nil { // else it is taken indeed
				defer func() { _ = l.Close() }()
			}
		}
	}
	c := newClone(t)
	plant(c)
	c.commit("Set secrets")
	c.bringTools()
	temp := t.TempDir()
	before := c.state()
	started := time.Now()
	out, said, code := c.run([]string{"TMPDIR=" + temp, "PULUMI_HOME=" + filepath.Join(temp, "home"), "PATH=" + withoutOwnPulumi()}, "preview-all", "-v")
	took := time.Since(started)
	require.Equal(t, 0, code, "%s%s", out, said)
	stacks := stackFiles(t)
	assert.Contains(t, stacks, "dev")
	for _, stack := range stacks {
		assert.Contains(t, out, "\n"+stack+": would create ")
	}
	assert.Contains(t, out, "docker:index:Container")
	assert.NotContains(t, out+said, canary)
	assert.Less(t, took, 90*time.Second, "with warm caches")
	t.Logf("previews of all stacks took %s", took.Round(100*time.Millisecond))

	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	assert.Empty(t, left)
	assert.Equal(t, before, c.state(), "the work tree or the index was touched")
	assert.Empty(t, onEngine(t, "platform_preview_"))
}

// stackFiles returns the stacks that have a file in the checkout.
func stackFiles(t *testing.T) []string {
	t.Helper()
	here, err := workspace.Open(root)
	require.NoError(t, err)
	return here.Stacks()
}

// bringTools returns the clone the tools that were built for the checkout, which takes minutes.
func (c *clone) bringTools() {
	c.t.Helper()
	require.NoError(c.t, os.MkdirAll(filepath.Join(c.dir, "tools", "bin"), 0o755))
	for _, tool := range []string{".pulumi", "pulumi", ".pulumi-language-go", "pulumi-language-go"} {
		from, to := filepath.Join(root, "tools", "bin", tool), filepath.Join(c.dir, "tools", "bin", tool)
		out, err := exec.Command("cp", "-p", from, to).CombinedOutput()
		require.NoError(c.t, err, string(out))
	}
}

// withoutOwnPulumi is PATH without a pulumi of the machine's, so that the one built here is used.
func withoutOwnPulumi() string {
	var kept []string
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, "pulumi")); err != nil {
			kept = append(kept, dir)
		}
	}
	return strings.Join(kept, string(os.PathListSeparator))
}

// onEngine lists what the engine has under a prefix, of any kind.
func onEngine(t *testing.T, prefix string) []string {
	t.Helper()
	engine, err := client.New(client.FromEnv)
	require.NoError(t, err)
	defer func() { _ = engine.Close() }()
	ctx := context.Background()
	containers, err := engine.ContainerList(ctx, client.ContainerListOptions{All: true})
	require.NoError(t, err)
	volumes, err := engine.VolumeList(ctx, client.VolumeListOptions{})
	require.NoError(t, err)
	networks, err := engine.NetworkList(ctx, client.NetworkListOptions{})
	require.NoError(t, err)
	images, err := engine.ImageList(ctx, client.ImageListOptions{})
	require.NoError(t, err)
	var names []string
	for _, c := range containers.Items {
		names = append(names, strings.TrimPrefix(c.Names[0], "/"))
	}
	for _, v := range volumes.Items {
		names = append(names, v.Name)
	}
	for _, n := range networks.Items {
		names = append(names, n.Name)
	}
	for _, i := range images.Items {
		names = append(names, i.RepoTags...)
	}
	var found []string
	for _, name := range names {
		if strings.HasPrefix(name, prefix) {
			found = append(found, name)
		}
	}
	return found
}
