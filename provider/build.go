package provider

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"

	buildkit "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/moby/client"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sync/errgroup"
)

// buildLogLines is how much of a failed build's log an error shows.
const buildLogLines = 20

// buildImage builds and tags the image.
func buildImage(ctx context.Context, c call, args ImageArgs) (ImageState, error) {
	id, err := runBuild(ctx, c, args)
	switch {
	case err == nil:
		return imageState(args, id), nil
	case ctx.Err() != nil:
		// The engine's message about the cancellation would only hide its cause.
		return ImageState{}, fmt.Errorf("image %s: its build was cancelled with the run", args.ImageName)
	case errors.As(err, new(*buildError)):
		return ImageState{}, err
	}
	return ImageState{}, fmt.Errorf("image %s: %w", args.ImageName, err)
}

func runBuild(ctx context.Context, c call, args ImageArgs) (string, error) {
	options, err := buildOptions(args)
	if err != nil {
		return "", err
	}
	builder, err := connectBuilder(ctx, c.engine)
	if err != nil {
		return "", err
	}
	defer func() { _ = builder.Close() }()
	c.status("building %s", args.ImageName)
	log := &buildLog{c: c, image: args.ImageName, names: map[digest.Digest]string{}, lines: map[digest.Digest][]string{}}
	updates := make(chan *buildkit.SolveStatus)
	var group errgroup.Group
	group.Go(func() error {
		for update := range updates {
			log.add(update)
		}
		return nil
	})
	_, err = builder.Solve(ctx, nil, options, updates)
	_ = group.Wait()
	if err != nil {
		return "", log.failed(err)
	}
	// The tag is looked up instead of taken from the answer, because a container gets the
	// image that has the tag.
	built, err := c.engine.ImageInspect(ctx, args.ImageName)
	return built.ID, err
}

// connectBuilder connects to the engine's BuildKit.
func connectBuilder(ctx context.Context, e client.APIClient) (*buildkit.Client, error) {
	return buildkit.New(ctx, "",
		buildkit.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return e.DialHijack(ctx, "/grpc", "h2c", nil)
		}),
		buildkit.WithSessionDialer(func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			return e.DialHijack(ctx, "/session", proto, meta)
		}))
}

// buildOptions describe the build to BuildKit, which reads both folders, and the
// Dockerfile's or the context's .dockerignore, itself.
func buildOptions(args ImageArgs) (buildkit.SolveOpt, error) {
	files, err := openContext(args.Build.Context, args.Build.Dockerfile)
	if err != nil {
		return buildkit.SolveOpt{}, err
	}
	source, err := fsutil.NewFS(files.root)
	if err != nil {
		return buildkit.SolveOpt{}, err
	}
	dockerfile, err := fsutil.NewFS(filepath.Dir(files.dockerfile))
	if err != nil {
		return buildkit.SolveOpt{}, err
	}
	attributes := map[string]string{"filename": filepath.Base(files.dockerfile)}
	if args.Build.Target != "" {
		attributes["target"] = args.Build.Target
	}
	if args.Build.Platform != "" {
		attributes["platform"] = args.Build.Platform
	}
	for name, value := range args.Build.Args {
		attributes["build-arg:"+name] = value
	}
	return buildkit.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: attributes,
		LocalMounts: map[string]fsutil.FS{"context": source, "dockerfile": dockerfile},
		Exports:     []buildkit.ExportEntry{{Type: "moby", Attrs: map[string]string{"name": args.ImageName}}},
		Session:     []session.Attachable{registryLogin{}},
	}, nil
}

// buildLog keeps what an error shows of a build: BuildKit's steps by their digest.
type buildLog struct {
	c     call
	image string
	names map[digest.Digest]string
	lines map[digest.Digest][]string
	// step is the one that failed.
	step digest.Digest
}

// interrupted matches BuildKit's message for a step that it stopped because another failed.
var interrupted = regexp.MustCompile(`context canceled|signal: (interrupt|killed)`)

// buildError is a failure of the build itself, with its full message.
type buildError struct{ text string }

func (e *buildError) Error() string { return e.text }

// add records what happened since the last update.
func (l *buildLog) add(update *buildkit.SolveStatus) {
	for _, vertex := range update.Vertexes {
		l.names[vertex.Digest] = vertex.Name
		switch {
		case vertex.Error != "" && l.step == "" && !interrupted.MatchString(vertex.Error):
			l.step = vertex.Digest
		case vertex.Started != nil && vertex.Completed == nil:
			l.c.status("building %s: %s", l.image, l.c.redact(vertex.Name))
		}
	}
	for _, log := range update.Logs {
		for line := range strings.SplitSeq(strings.TrimRight(string(log.Data), "\n"), "\n") {
			l.lines[log.Vertex] = append(l.lines[log.Vertex], line)
		}
	}
}

// failed names the step that failed, with its last lines.
func (l *buildLog) failed(cause error) error {
	step := l.names[l.step]
	noBase := strings.Contains(step, "load metadata for")
	if noBase && !l.c.first(step) {
		_, base, _ := strings.Cut(step, "load metadata for ")
		return &buildError{fmt.Sprintf("image %s could not be built for the same cause: its base image %s", l.image, base)}
	}
	text := fmt.Sprintf("image %s could not be built", l.image)
	if step != "" {
		text += ", at: " + step
	}
	text += "\n" + cause.Error()
	lines := l.lines[l.step]
	if len(lines) > buildLogLines {
		lines = lines[len(lines)-buildLogLines:]
	}
	if len(lines) > 0 {
		text += "\nlast lines of that step:\n    " + strings.Join(lines, "\n    ")
	}
	if noBase {
		text += "\nFix: `images.<service>` names another image for the service, which is then not built; " +
			"if no registry can be reached, `platform init` builds the images on this machine"
	}
	return &buildError{l.c.redact(text)}
}
