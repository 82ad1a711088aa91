package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"trading-platform/plan"
)

const (
	// temporaryLabel marks the containers that these operations work with. Beside it they
	// carry the stack's identity.
	temporaryLabel = "trading-platform.temporary"
	// stagingLabel marks the one that mounts the new volumes of a restore, as long as the
	// stack does not use them.
	stagingLabel = "trading-platform.staging"
	// replacesLabel is a volume's label with the name of the volume that the stack used
	// before it.
	replacesLabel = "trading-platform.replaces"
)

// temporary is a container that is removed when its work is done.
type temporary struct {
	image      string // any of the stack's when empty
	entrypoint []string
	command    []string // nil for the image's own
	env        []string
	mounts     []mount.Mount
	network    container.NetworkMode // none when empty
	labels     map[string]string     // besides those that mark it
}

func (s *Stack) create(ctx context.Context, t temporary) (id string, err error) {
	labels := map[string]string{temporaryLabel: "", plan.IdentityLabel: s.Plan.Identity}
	maps.Copy(labels, t.labels)
	if t.network == "" {
		t.network = "none"
	}
	for i := 0; t.image == "" && i < len(s.Plan.Services); i++ {
		if found, err := s.Engine.ImageInspect(ctx, s.Plan.Services[i].Image.Key()); err == nil {
			t.image = found.ID
		}
	}
	// Not interrupted, because the engine would go on and nobody would know the container.
	made, err := s.Engine.ContainerCreate(context.WithoutCancel(ctx), client.ContainerCreateOptions{
		Config: &container.Config{
			Image: t.image, Entrypoint: t.entrypoint, Cmd: t.command, Env: t.env, Labels: labels,
			Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
		},
		HostConfig: &container.HostConfig{Mounts: t.mounts, NetworkMode: t.network},
	})
	return made.ID, err
}

// remove removes a temporary container, also after an interruption. The anonymous
// volumes that its image asks for go with it, named ones do not.
func (s *Stack) remove(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, _ = s.Engine.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
}

// sweep removes what an interrupted operation left: its containers, and the volumes
// that a restore staged and the stack does not use.
func (s *Stack) sweep(ctx context.Context) error {
	left, err := s.Engine.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: client.Filters{}.Add("label", temporaryLabel, plan.IdentityLabel+"="+s.Plan.Identity),
	})
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, v := range s.Plan.Volumes {
		used[v.Name] = true
	}
	for _, c := range left.Items {
		s.Say("removing what an interrupted run left: container " + c.ID[:12])
		s.remove(c.ID)
		if _, staging := c.Labels[stagingLabel]; !staging {
			continue
		}
		for _, m := range c.Mounts { // an anonymous one is gone with the container
			if used[m.Name] {
				continue
			}
			if _, err := s.Engine.VolumeRemove(ctx, m.Name, client.VolumeRemoveOptions{}); err != nil && !cerrdefs.IsNotFound(err) {
				return err
			}
		}
	}
	return nil
}

// image gives the reference of a service's image, pulled when the engine lacks it, and
// the version of the server in it, which official images have in a variable. The version
// is empty when the image does not tell.
func (s *Stack) image(ctx context.Context, reference, variable string) (version string, err error) {
	found, err := s.Engine.ImageInspect(ctx, reference)
	if cerrdefs.IsNotFound(err) {
		s.Say("pulling " + reference)
		var pulled client.ImagePullResponse
		if pulled, err = s.Engine.ImagePull(ctx, reference, client.ImagePullOptions{}); err == nil {
			err = pulled.Wait(ctx)
		}
		if err != nil {
			return "", refuse("image "+reference, "docker pull "+shell(reference)+", where the engine reaches a registry",
				"is not on the engine and cannot be pulled: %v", err)
		}
		found, err = s.Engine.ImageInspect(ctx, reference)
	}
	if err != nil || found.Config == nil {
		return "", err
	}
	return variableOf(found.Config.Env, variable), nil
}

// variableOf gives the value of a variable in an environment.
func variableOf(env []string, name string) string {
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return ""
}

// tail keeps the end of what is written to it.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	*t = (*t)[max(0, len(*t)-4<<10):]
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(*t)) }

// ask runs a command in a container and gives its standard output without the space around it.
func (s *Stack) ask(ctx context.Context, id string, env []string, command ...string) (string, error) {
	var out strings.Builder
	err := s.exec(ctx, id, env, http.NoBody, &out, command...)
	return strings.TrimSpace(out.String()), err
}

// exec runs a command in a container. An error has the end of what the command wrote to
// standard error. The command is run as it is and not under a shell: should the shell
// die, its children would go to the container's first process, and PostgreSQL takes the
// end of a child that it does not know for the crash of a session, and restarts.
func (s *Stack) exec(ctx context.Context, id string, env []string, in io.Reader, out io.Writer, command ...string) error {
	made, err := s.Engine.ExecCreate(ctx, id, client.ExecCreateOptions{
		AttachStdin: true, AttachStdout: true, AttachStderr: true, Env: env, Cmd: command,
	})
	if err != nil {
		return err
	}
	attached, err := s.Engine.ExecAttach(ctx, made.ID, client.ExecAttachOptions{})
	if err != nil {
		return err
	}
	defer attached.Close()
	defer context.AfterFunc(ctx, attached.Close)() // the connection knows nothing of the context
	var sent errgroup.Group
	sent.Go(func() error {
		_, err := io.Copy(attached.Conn, in)
		return errors.Join(err, attached.CloseWrite())
	})
	var complaint tail
	if _, err := stdcopy.StdCopy(out, &complaint, attached.Reader); err != nil || ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	ended, err := s.Engine.ExecInspect(ctx, made.ID, client.ExecInspectOptions{})
	for err == nil && ended.Running { // the stream may end a moment before the engine knows the exit code
		time.Sleep(20 * time.Millisecond)
		ended, err = s.Engine.ExecInspect(ctx, made.ID, client.ExecInspectOptions{})
	}
	if err == nil && ended.ExitCode != 0 {
		err = fmt.Errorf("%s ended with exit code %d: %s", command[0], ended.ExitCode, &complaint)
	}
	if err != nil {
		return err
	}
	return sent.Wait()
}

// start starts a temporary container and waits until a command succeeds in it.
func (s *Stack) start(ctx context.Context, id string, probe ...string) error {
	if _, err := s.Engine.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		_, err := s.ask(ctx, id, nil, probe...)
		if err == nil {
			return nil
		}
		if c, inspectErr := s.Engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{}); inspectErr != nil || !c.Container.State.Running {
			return errors.Join(fmt.Errorf("the server does not start: %s", s.log(id)), inspectErr)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// stop ends a server in its own time, and fails unless it ended well: only then is all
// of its data on the disk.
func (s *Stack) stop(ctx context.Context, id string) error {
	seconds := 600
	if _, err := s.Engine.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: &seconds}); err != nil {
		return err
	}
	c, err := s.Engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err == nil && c.Container.State.ExitCode != 0 {
		err = fmt.Errorf("the server ended with exit code %d: %s", c.Container.State.ExitCode, s.log(id))
	}
	return err
}

// log gives the end of a container's log.
func (s *Stack) log(id string) string {
	logs, err := s.Engine.ContainerLogs(context.Background(), id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: "10"})
	if err != nil {
		return err.Error()
	}
	defer func() { _ = logs.Close() }()
	var text tail
	_, _ = stdcopy.StdCopy(&text, &text, logs)
	return text.String()
}

// sizes gives the sizes of volumes as a user reads them. The engine's own count
// (docker system df) goes through every image and container as well, before Docker 23.
func (s *Stack) sizes(ctx context.Context, volumes []string) (map[string]string, error) {
	sizes := map[string]string{}
	mounts := make([]mount.Mount, len(volumes))
	command := []string{"du", "-sk"}
	for i, name := range volumes {
		path := fmt.Sprintf("/%d", i)
		mounts[i] = mount.Mount{Type: mount.TypeVolume, Source: name, Target: path, ReadOnly: true}
		command = append(command, path)
	}
	id, err := s.create(ctx, temporary{entrypoint: []string{"sleep"}, command: []string{"3600"}, mounts: mounts})
	if err != nil {
		return nil, err
	}
	defer s.remove(id)
	if err := s.start(ctx, id, "true"); err != nil {
		return nil, err
	}
	out, err := s.ask(ctx, id, nil, command...)
	for line := range strings.Lines(out) {
		var kib float64
		var i int
		if _, err := fmt.Sscanf(line, "%f\t/%d", &kib, &i); err == nil && i < len(volumes) {
			sizes[volumes[i]] = units.HumanSize(kib * 1024)
		}
	}
	return sizes, err
}
