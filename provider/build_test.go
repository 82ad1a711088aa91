package provider

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	control "github.com/moby/buildkit/api/services/control"
	p "github.com/pulumi/pulumi-go-provider"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func newLog() *buildLog {
	inputs := properties(map[string]any{"build": map[string]any{"args": secret(map[string]any{"TOKEN": "hunter2secret"})}})
	return &buildLog{c: call{provider: &provider{}, inputs: inputs, log: p.GetLogger(context.Background())}, image: "app:dev", names: map[string]string{}, lines: map[string][]string{}}
}

func TestFailedBuildShowsItsStep(t *testing.T) {
	t.Parallel()
	buildKit := func(status *control.StatusResponse) string {
		bytes, err := proto.Marshal(status)
		require.NoError(t, err)
		line, err := json.Marshal(map[string]any{"id": "moby.buildkit.trace", "aux": base64.StdEncoding.EncodeToString(bytes)})
		require.NoError(t, err)
		return string(line)
	}
	const failure = `{"errorDetail":{"message":"exit code: 2"},"error":"exit code: 2"}`
	many := strings.Repeat("line\n", 30)
	stream := buildKit(&control.StatusResponse{
		Vertexes: []*control.Vertex{
			{Digest: "sha256:1", Name: "[1/2] COPY", Started: timestamppb.Now()},
			{Digest: "sha256:2", Name: "[2/2] RUN make hunter2secret", Started: timestamppb.Now()},
			{Digest: "sha256:3", Name: "[other 2/2] RUN sleep", Started: timestamppb.Now()},
		},
		Logs: []*control.VertexLog{{Vertex: "sha256:1", Msg: []byte("copying\n")}, {Vertex: "sha256:2", Msg: []byte(many + "undefined: foo hunter2secret\n")}},
	}) + buildKit(&control.StatusResponse{Vertexes: []*control.Vertex{
		{Digest: "sha256:1", Name: "[1/2] COPY", Error: "context canceled"},
		{Digest: "sha256:2", Name: "[2/2] RUN make hunter2secret", Error: "exit code: 2"},
		{Digest: "sha256:3", Name: "[other 2/2] RUN sleep", Error: "process did not complete successfully: signal: interrupt"},
	}}) + failure
	log := newLog()
	err := log.follow(strings.NewReader(stream))
	require.EqualError(t, err, "exit code: 2")
	text := log.failed(err).Error()
	assert.Contains(t, text, "image app:dev could not be built, at: ")
	assert.Contains(t, text, "[2/2] RUN make [secret]\nexit code: 2")
	assert.Contains(t, text, "undefined: foo [secret]")
	assert.NotContains(t, text, "copying")
	assert.Equal(t, buildLogLines-1, strings.Count(text, "    line\n"))
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
	_, err := serve(t, ctx, &fakeEngine{}).Create(p.CreateRequest{Urn: urnOf(imageToken), Properties: properties(map[string]any{
		"imageName": "app:dev", "skipPush": true, "build": map[string]any{"context": root},
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
