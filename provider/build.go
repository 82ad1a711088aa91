package provider

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"

	control "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	buildtypes "github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// buildLogLines is how much of a failed build's log an error shows.
const buildLogLines = 20

// buildImage builds and tags the image.
func buildImage(ctx context.Context, c call, args ImageArgs) (ImageState, error) {
	id, err := runBuild(ctx, c, args)
	failed := new(buildError)
	switch {
	case err == nil:
		return imageState(args, id), nil
	case ctx.Err() != nil:
		// How the engine words the cancellation only hides the error that caused it.
		return ImageState{}, fmt.Errorf("image %s: its build was cancelled with the run", args.ImageName)
	case errors.As(err, &failed):
		return ImageState{}, err
	}
	return ImageState{}, fmt.Errorf("image %s: %w", args.ImageName, err)
}

func runBuild(ctx context.Context, c call, args ImageArgs) (string, error) {
	files, err := openContext(args.Build.Context, args.Build.Dockerfile)
	if err != nil {
		return "", err
	}
	platforms, err := parsePlatform(args.Build.Platform)
	if err != nil {
		return "", err
	}
	options := client.ImageBuildOptions{
		Tags: []string{args.ImageName}, Dockerfile: sentDockerfile, BuildArgs: map[string]*string{},
		Target: args.Build.Target, Platforms: platforms,
		Version: buildtypes.BuilderBuildKit, Remove: true,
	}
	for name, value := range args.Build.Args {
		options.BuildArgs[name] = &value
	}
	id, end, err := buildSession(ctx, c.engine)
	if err != nil {
		return "", err
	}
	defer end()
	options.SessionID = id

	source, sink := io.Pipe()
	go func() { sink.CloseWithError(files.archive(sink)) }()
	defer func() { _ = source.Close() }()
	c.status("building %s", args.ImageName)
	result, err := c.engine.ImageBuild(ctx, source, options)
	if err != nil {
		return "", err
	}
	defer func() { _ = result.Body.Close() }()
	log := &buildLog{c: c, image: args.ImageName, names: map[string]string{}, lines: map[string][]string{}}
	if err := log.follow(result.Body); err != nil {
		return "", log.failed(err)
	}
	// The tag is looked up rather than the stream believed: what matters is what a
	// container will get.
	built, err := c.engine.ImageInspect(ctx, args.ImageName)
	return built.ID, err
}

// dialer is the part of the client that a build session needs.
type dialer interface {
	DialHijack(ctx context.Context, url, proto string, meta map[string][]string) (net.Conn, error)
}

// buildSession opens what BuildKit asks for registry credentials; without one it
// cannot pull a base image, not even a public one. end closes it.
func buildSession(ctx context.Context, e client.APIClient) (id string, end func(), err error) {
	d, ok := e.(dialer)
	if !ok {
		return "", func() {}, nil
	}
	s, err := session.NewSession(ctx, "")
	if err != nil {
		return "", nil, fmt.Errorf("build session: %w", err)
	}
	s.Allow(registryLogin{})
	go func() {
		// A session that ends early shows as a failed pull in the build's own words.
		_ = s.Run(ctx, func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			return d.DialHijack(ctx, "/session", proto, meta)
		})
	}()
	return s.ID(), func() { _ = s.Close() }, nil
}

// registryLogin answers BuildKit with what `docker login` stored.
type registryLogin struct{ auth.UnimplementedAuthServer }

// Register adds it to the session.
func (r registryLogin) Register(server *grpc.Server) { auth.RegisterAuthServer(server, r) }

// Credentials of a registry; empty ones make the pull anonymous.
func (registryLogin) Credentials(_ context.Context, req *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	found, err := credentials(strings.TrimPrefix(strings.TrimPrefix(req.GetHost(), "https://"), "http://"))
	return loginResponse(found), err
}

func loginResponse(found registry.AuthConfig) *auth.CredentialsResponse {
	if found.IdentityToken != "" {
		return &auth.CredentialsResponse{Secret: found.IdentityToken}
	}
	return &auth.CredentialsResponse{Username: found.Username, Secret: found.Password}
}

// buildLog keeps what an error must show of a build: BuildKit's steps by their digest.
type buildLog struct {
	c     call
	image string
	names map[string]string
	lines map[string][]string
	// step is the one that failed.
	step string
}

// follow reads the stream to its end.
func (l *buildLog) follow(stream io.Reader) error {
	decoder := json.NewDecoder(stream)
	for {
		var message jsonstream.Message
		err := decoder.Decode(&message)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if message.Error != nil {
			return message.Error
		}
		if message.ID == "moby.buildkit.trace" && message.Aux != nil {
			l.trace(*message.Aux)
		}
	}
}

// interrupted is how BuildKit words the end of a step that it stopped because another failed.
var interrupted = regexp.MustCompile(`context canceled|signal: (interrupt|killed)`)

// buildError is a build's own failure, told in full.
type buildError struct{ text string }

func (e *buildError) Error() string { return e.text }

// trace takes in one of BuildKit's status messages.
func (l *buildLog) trace(aux json.RawMessage) {
	var encoded string
	var status control.StatusResponse
	if json.Unmarshal(aux, &encoded) != nil {
		return
	}
	bytes, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || proto.Unmarshal(bytes, &status) != nil {
		return
	}
	for _, vertex := range status.GetVertexes() {
		l.names[vertex.GetDigest()] = vertex.GetName()
		switch {
		case vertex.GetError() != "" && l.step == "" && !interrupted.MatchString(vertex.GetError()):
			l.step = vertex.GetDigest()
		case vertex.GetStarted() != nil && vertex.GetCompleted() == nil:
			l.c.status("building %s: %s", l.image, l.c.redact(vertex.GetName()))
		}
	}
	for _, log := range status.GetLogs() {
		for line := range strings.SplitSeq(strings.TrimRight(string(log.GetMsg()), "\n"), "\n") {
			l.lines[log.GetVertex()] = append(l.lines[log.GetVertex()], line)
		}
	}
}

// failed says at which step, with its last lines.
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
		text += "\nFix: `images.<service>` names another image for the service, which spares the build; " +
			"where no registry can be reached, make the images here with `platform init`"
	}
	return &buildError{l.c.redact(text)}
}
