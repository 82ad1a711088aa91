package provider

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	buildkit "github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
	p "github.com/pulumi/pulumi-go-provider"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func newLog() *buildLog {
	inputs := properties(map[string]any{"build": map[string]any{"args": secret(map[string]any{"TOKEN": "hunter2secret"})}})
	return &buildLog{c: call{provider: &provider{}, inputs: inputs, log: p.GetLogger(context.Background())}, image: "app:dev", names: map[digest.Digest]string{}, logs: map[digest.Digest][]byte{}}
}

func TestFailedBuildShowsItsStep(t *testing.T) {
	t.Parallel()
	const broken, copying, sleeping = digest.Digest("sha256:2"), digest.Digest("sha256:1"), digest.Digest("sha256:3")
	now := time.Now()
	log := newLog()
	log.add(&buildkit.SolveStatus{
		Vertexes: []*buildkit.Vertex{
			{Digest: copying, Name: "[1/2] COPY", Started: &now},
			{Digest: broken, Name: "[2/2] RUN make hunter2secret", Started: &now},
			{Digest: sleeping, Name: "[other 2/2] RUN sleep", Started: &now},
		},
		Logs: []*buildkit.VertexLog{
			{Vertex: copying, Data: []byte("copying\n")},
			{Vertex: broken, Data: []byte(strings.Repeat("line\n", 30) + "undefined: foo hunter2secret\n")},
		},
	})
	log.add(&buildkit.SolveStatus{Vertexes: []*buildkit.Vertex{
		{Digest: copying, Name: "[1/2] COPY", Error: "context canceled"},
		{Digest: broken, Name: "[2/2] RUN make hunter2secret", Error: "exit code: 2"},
		{Digest: sleeping, Name: "[other 2/2] RUN sleep", Error: "process did not complete successfully: signal: interrupt"},
	}})
	err := errors.New("exit code: 2")
	text := log.failed(err).Error()
	assert.Contains(t, text, "image app:dev could not be built, at: ")
	assert.Contains(t, text, "[2/2] RUN make [secret]\nexit code: 2")
	assert.Contains(t, text, "undefined: foo [secret]")
	assert.NotContains(t, text, "copying")
	assert.Equal(t, logLines-1, strings.Count(text, "    line\n"))
}

func TestFailedBaseImageSaysWhatToDo(t *testing.T) {
	t.Parallel()
	log := newLog()
	log.step, log.names["d"] = "d", "[internal] load metadata for docker.io/library/golang:1"
	assert.ErrorContains(t, log.failed(errors.New("no such host")), "Fix: `images.<service>`")
	log.image = "other:dev"
	assert.EqualError(t, log.failed(errors.New("no such host")),
		"image other:dev could not be built for the same cause: its base image docker.io/library/golang:1")
}

func TestCancelledBuildDoesNotHideTheCause(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(root, "Dockerfile"), []byte("FROM scratch\n"), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	_, err := serve(t, ctx, &fakeEngine{}).Create(p.CreateRequest{Urn: urnOf(imageType), Properties: properties(map[string]any{
		"imageName": "app:dev", "skipPush": true, "build": map[string]any{"context": root, "dockerfile": filepath.Join(root, "Dockerfile")},
	})})
	require.EqualError(t, err, "image app:dev: its build was cancelled with the run")
}

func TestSecretTexts(t *testing.T) {
	t.Parallel()
	inputs := properties(map[string]any{
		"name":    "plainvalue",
		"envs":    secret([]any{"PASSWORD=correct-horse", "PORT=5432", "URL=postgresql://user:inner-secret@db:5432/x"}),
		"uploads": []any{map[string]any{"content": secret("-----BEGIN-----\nkeykeykey\n")}},
	})
	got := call{inputs: inputs}.redact("plainvalue correct-horse 5432 inner-secret keykeykey postgresql://user:inner-secret@db:5432/x")
	assert.Equal(t, "plainvalue [secret] 5432 [secret] [secret] [secret]", got)
}
