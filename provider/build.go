package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	buildkit "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/moby/client"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"

	engines "trading-platform/engine"
)

// buildImage builds and tags the image.
func buildImage(ctx context.Context, c call, args imageArgs) (imageState, error) {
	options, err := buildOptions(args)
	if err != nil {
		return imageState{}, err
	}
	builder, err := connectBuilder(ctx, c.engine)
	if err != nil {
		return imageState{}, err
	}
	defer func() { _ = builder.Close() }()
	c.log.InfoStatusf("building %s", args.ImageName)
	log := &buildLog{c: c, image: args.ImageName, names: map[digest.Digest]string{}, logs: map[digest.Digest][]byte{}}
	updates := make(chan *buildkit.SolveStatus)
	var reading sync.WaitGroup
	reading.Go(func() {
		for update := range updates {
			log.add(update)
		}
	})
	_, err = builder.Solve(ctx, nil, options, updates)
	reading.Wait()
	switch {
	case err != nil && ctx.Err() != nil:
		// The engine's message about the cancellation would only hide its cause.
		return imageState{}, errors.New("its build was cancelled with the run")
	case err != nil:
		return imageState{}, log.failed(err)
	}
	// The tag is looked up instead of taken from the answer, because a container gets the
	// image that has the tag.
	built, err := c.engine.ImageInspect(ctx, args.ImageName)
	if err == nil && !args.SkipPush {
		return pushImage(ctx, c, args.ImageName)
	}
	return imageState{built.ID}, err
}

// pushImage pushes the image to its registry.
func pushImage(ctx context.Context, c call, name string) (imageState, error) {
	login, err := registryAuth(name)
	if err != nil {
		return imageState{}, err
	}
	c.log.InfoStatusf("pushing %s", name)
	// Older engines refuse a push without the header.
	stream, err := c.engine.ImagePush(ctx, name, client.ImagePushOptions{RegistryAuth: cmp.Or(login, "e30=")})
	if err == nil {
		defer func() { _ = stream.Close() }()
		err = stream.Wait(ctx)
	}
	if err != nil {
		return imageState{}, fmt.Errorf("image %s could not be pushed to %s: %w\nFix: docker push %[1]s shows the cause", name, engines.Registry(name), err)
	}
	pushed, err := c.engine.ImageInspect(ctx, name)
	for _, digest := range pushed.RepoDigests {
		if strings.HasPrefix(digest, name[:strings.LastIndex(name, ":")]+"@") {
			return imageState{digest}, nil
		}
	}
	return imageState{}, cmp.Or(err, fmt.Errorf("image %s: the engine has no digest of what was pushed", name))
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
func buildOptions(args imageArgs) (buildkit.SolveOpt, error) {
	source, err := fsutil.NewFS(args.Build.Context)
	if err != nil {
		return buildkit.SolveOpt{}, err
	}
	dockerfile, err := fsutil.NewFS(filepath.Dir(args.Build.Dockerfile))
	if err != nil {
		return buildkit.SolveOpt{}, err
	}
	attributes := map[string]string{"filename": filepath.Base(args.Build.Dockerfile)}
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
	logs  map[digest.Digest][]byte
	// step is the one that failed.
	step digest.Digest
}

// interrupted matches BuildKit's message for a step that it stopped because another failed.
var interrupted = regexp.MustCompile(`context canceled|signal: (interrupt|killed)`)

// add records what happened since the last update.
func (l *buildLog) add(update *buildkit.SolveStatus) {
	for _, vertex := range update.Vertexes {
		l.names[vertex.Digest] = vertex.Name
		switch {
		case vertex.Error != "" && l.step == "" && !interrupted.MatchString(vertex.Error):
			l.step = vertex.Digest
		case vertex.Started != nil && vertex.Completed == nil:
			l.c.log.InfoStatusf("building %s: %s", l.image, l.c.redact(vertex.Name))
		}
	}
	for _, log := range update.Logs {
		l.logs[log.Vertex] = append(l.logs[log.Vertex], log.Data...)
	}
}

// failed names the step that failed, with its last lines.
func (l *buildLog) failed(cause error) error {
	step := l.names[l.step]
	_, base, noBase := strings.Cut(step, "load metadata for ")
	if noBase && !l.c.first(step) {
		return fmt.Errorf("image %s could not be built for the same cause: its base image %s", l.image, base)
	}
	text := fmt.Sprintf("image %s could not be built", l.image)
	if step != "" {
		text += ", at: " + step
	}
	text += "\n" + cause.Error()
	if log := l.logs[l.step]; len(log) > 0 {
		text += "\nlast lines of that step:" + lastLines(string(log))
	}
	if noBase {
		text += "\nFix: `images.<service>` names another image for the service, which is then not built; " +
			"if no registry can be reached, `platform init` builds the images on this machine"
	}
	return errors.New(l.c.redact(text))
}
