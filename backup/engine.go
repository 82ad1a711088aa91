package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"al.essio.dev/pkg/shellescape"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"trading-platform/plan"
)

const (
	// temporaryLabel marks the containers that these operations create, in addition to the stack's identity.
	temporaryLabel = "trading-platform.temporary"
	// stagingLabel marks the one that mounts the new volumes of a restore, as long as the
	// stack does not use them.
	stagingLabel = "trading-platform.staging"
	// replacesLabel is a volume's label with the name of the volume that the stack used
	// before it.
	replacesLabel = "trading-platform.replaces"
)

// create creates a container that is to be removed when its work is done. It may run any of
// the stack's images, and has no network unless the settings say otherwise.
func (s *Stack) create(ctx context.Context, config container.Config, host container.HostConfig) (id string, err error) {
	labels := map[string]string{temporaryLabel: "", plan.IdentityLabel: s.Plan.Identity}
	maps.Copy(labels, config.Labels)
	config.Labels = labels
	config.Healthcheck = &container.HealthConfig{Test: []string{"NONE"}}
	host.LogConfig.Type = plan.LogDriver // which log can read, whatever the engine's default is
	if host.NetworkMode == "" {
		host.NetworkMode = "none"
	}
	for i := 0; config.Image == "" && i < len(s.Plan.Services); i++ {
		if found, err := s.Engine.ImageInspect(ctx, s.Plan.Services[i].Image.Key()); err == nil {
			config.Image = found.ID
		}
	}
	// An interruption would not stop the engine, and the container would never be removed.
	made, err := s.Engine.ContainerCreate(context.WithoutCancel(ctx), client.ContainerCreateOptions{Config: &config, HostConfig: &host})
	return made.ID, err
}

// remove removes a temporary container, also after an interruption. The anonymous
// volumes that its image asks for go with it, named ones do not.
func (s *Stack) remove(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, _ = s.Engine.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
}

// users returns the containers that have one of these volumes, running or not.
func (s *Stack) users(ctx context.Context, volumes ...string) ([]container.Summary, error) {
	users, err := s.Engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("volume", volumes...)})
	return users.Items, err
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
	for _, c := range left.Items {
		s.Say("removing what an interrupted run left: container " + c.ID[:12])
		s.remove(c.ID)
		_, staging := c.Labels[stagingLabel]
		for _, m := range c.Mounts { // an anonymous one is gone with the container, which Force permits
			if staging && m.RW && !slices.ContainsFunc(s.Plan.Volumes, func(v plan.Volume) bool { return v.Name == m.Name }) {
				if _, err := s.Engine.VolumeRemove(ctx, m.Name, client.VolumeRemoveOptions{Force: true}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// version returns the version of the server in an image, which official images have in a
// variable. It is empty when the image does not have it. The image is pulled when the
// engine lacks it.
func (s *Stack) version(ctx context.Context, image, variable string) (version string, err error) {
	found, err := s.Engine.ImageInspect(ctx, image)
	if cerrdefs.IsNotFound(err) {
		s.Say("pulling " + image)
		pulled, pullErr := s.Engine.ImagePull(ctx, image, client.ImagePullOptions{})
		if pullErr == nil {
			pullErr = pulled.Wait(ctx)
		}
		if pullErr != nil {
			return "", refuse("image "+image, "docker pull "+shellescape.Quote(image)+", where the engine reaches a registry",
				"is not on the engine and cannot be pulled: %v", pullErr)
		}
		found, err = s.Engine.ImageInspect(ctx, image)
	}
	if err != nil || found.Config == nil {
		return "", err
	}
	return variableOf(found.Config.Env, variable), nil
}

// variableOf returns the value of a variable in an environment.
func variableOf(env []string, name string) string {
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return ""
}

// Ask runs a command in a container and gives its standard output without the space around it.
func (s *Stack) Ask(ctx context.Context, id string, env []string, command ...string) (string, error) {
	var out strings.Builder
	err := s.exec(ctx, id, env, http.NoBody, &out, command...)
	return strings.TrimSpace(out.String()), err
}

// exec runs a command in a container. An error has what the command wrote to standard
// error. The command is run as it is and not under a shell: should the shell die, its
// children would go to the container's first process, and PostgreSQL takes the end of a
// child that it does not know for the crash of a session, and restarts.
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
	defer context.AfterFunc(ctx, attached.Close)() // the connection does not observe the context
	var sent errgroup.Group
	sent.Go(func() error {
		_, err := io.Copy(attached.Conn, in)
		return errors.Join(err, attached.CloseWrite())
	})
	var complaint strings.Builder
	if _, err := stdcopy.StdCopy(out, &complaint, attached.Reader); err != nil || ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	ended, err := s.Engine.ExecInspect(ctx, made.ID, client.ExecInspectOptions{})
	for err == nil && ended.Running { // the stream may end a moment before the engine knows the exit code
		time.Sleep(20 * time.Millisecond)
		ended, err = s.Engine.ExecInspect(ctx, made.ID, client.ExecInspectOptions{})
	}
	if err == nil && ended.ExitCode != 0 {
		err = fmt.Errorf("%s ended with exit code %d: %s", command[0], ended.ExitCode, strings.TrimSpace(complaint.String()))
	}
	if err != nil {
		return err
	}
	return sent.Wait()
}

// serve runs a temporary server: it waits until a command succeeds in it, has work use it, and stops it.
func (s *Stack) serve(ctx context.Context, config container.Config, host container.HostConfig, probe []string, work func(id string) error) error {
	id, err := s.create(ctx, config, host)
	if err != nil {
		return err
	}
	defer s.remove(id)
	if _, err := s.Engine.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return err
	}
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		_, err := s.Ask(ctx, id, nil, probe...)
		if err == nil {
			break
		}
		c, inspectErr := s.Engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if inspectErr != nil || !c.Container.State.Running || time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("the server does not start: %s", s.log(id, "10")), inspectErr)
		}
	}
	if err := work(id); err != nil {
		return err
	}
	return s.stop(ctx, id)
}

// stop stops a server, gives it time, and fails unless it exited with 0: only then is
// all of its data on the disk.
func (s *Stack) stop(ctx context.Context, id string) error {
	seconds := 600
	if _, err := s.Engine.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: &seconds}); err != nil {
		return err
	}
	c, err := s.Engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err == nil && c.Container.State.ExitCode != 0 {
		err = fmt.Errorf("the server ended with exit code %d: %s", c.Container.State.ExitCode, s.log(id, "10"))
	}
	return err
}

// log returns the last lines of a container's log.
func (s *Stack) log(id, lines string) string {
	logs, err := s.Engine.ContainerLogs(context.Background(), id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: lines})
	if err != nil {
		return err.Error()
	}
	defer func() { _ = logs.Close() }()
	var text strings.Builder
	_, _ = stdcopy.StdCopy(&text, &text, logs)
	return strings.TrimSpace(text.String())
}

// run runs a command in a new container that mounts volumes, and returns what it has written.
func (s *Stack) run(ctx context.Context, image string, binds []string, command ...string) (string, error) {
	id, err := s.create(ctx, container.Config{Image: image, User: "0", Entrypoint: command}, container.HostConfig{Binds: binds})
	if err != nil {
		return "", err
	}
	defer s.remove(id)
	if _, err := s.Engine.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return "", err
	}
	ended := s.Engine.ContainerWait(ctx, id, client.ContainerWaitOptions{})
	select {
	case err := <-ended.Error:
		return "", err
	case <-ended.Result:
		return s.log(id, "all"), nil
	}
}

// sized returns a volume's name with its size.
func (s *Stack) sized(ctx context.Context, volume string) string {
	return volume + " (" + s.Size(ctx, volume) + ")"
}

// Size returns the size of volumes together in a readable unit, if it can be found out.
// The engine's own count (docker system df) also goes through every image and container
// before Docker 23, and refuses to run twice at once.
func (s *Stack) Size(ctx context.Context, volumes ...string) string {
	var binds []string
	for _, name := range volumes {
		binds = append(binds, name+":/volumes/"+name+":ro")
	}
	var kib float64
	printed, _ := s.run(ctx, "", binds, "du", "-sk", "/volumes")
	if _, err := fmt.Sscan(printed, &kib); err != nil {
		return "size unknown"
	}
	return units.HumanSize(kib * 1024)
}
