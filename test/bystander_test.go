//go:build live || official

package test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"trading-platform/plan"
)

// bystander is what a user has on the engine while the tests run, and a database that looks most like a user's: its names
// begin with the default prefix, and its volumes are those of an old Compose stack. Nothing of it may be another after the run.
type bystander struct {
	before    map[string]string
	container string // the planted database's id
	volumes   []string
	rows      string
	qlib      string // the image that builds give the one name that is no test's own; empty for none
}

// plantBystander makes the database and takes down what the engine holds.
func plantBystander(ctx context.Context) (*bystander, error) {
	name := "trading_platform_" + strings.TrimPrefix(runID, "tptest-")
	b := &bystander{}
	if id, err := docker("image", "inspect", "-f", "{{.Id}}", "qlib_src:latest"); err == nil {
		b.qlib = id
	}
	for _, key := range []string{"pgdata", "redisdata", "grafanadata"} { // by which an old Compose stack is known
		b.volumes = append(b.volumes, name+"_"+key)
		if _, err := docker("volume", "create", "--label", bystanderLabel+"="+runID, "--label", "com.docker.compose.project="+name,
			"--label", "com.docker.compose.volume="+key, name+"_"+key); err != nil {
			return b, err
		}
	}
	var err error
	if b.container, err = docker("run", "-d", "--name", name+"_postgres", "--label", bystanderLabel+"="+runID, "-e", "POSTGRES_PASSWORD=of-a-bystander", "--restart", "unless-stopped",
		"-v", b.volumes[0]+":/var/lib/postgresql/data", references["postgres"]); err != nil {
		return b, err
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if _, err := docker("exec", b.container, "pg_isready", "-q", "-h", "127.0.0.1"); err == nil {
			break
		} else if time.Now().After(deadline) {
			return b, fmt.Errorf("the bystander's database does not answer: %w", err)
		}
	}
	if _, err := b.sql("create table kept as select i, md5(i::text) as word from generate_series(1, 1000) i"); err != nil {
		return b, err
	}
	if b.rows, err = b.sql(contents); err != nil {
		return b, err
	}
	b.before, err = holdings(ctx)
	return b, err
}

// contents counts the planted rows and sums them up.
const contents = "select count(*) || ' rows, ' || md5(string_agg(word, ',' order by i)) from kept"

func (b *bystander) sql(statement string) (string, error) {
	return docker("exec", b.container, "psql", "-U", "postgres", "-h", "127.0.0.1", "-tAc", statement)
}

// check returns all that is not as it was, and what the run left behind. It says what was looked at.
func (b *bystander) check(ctx context.Context, say func(string)) error {
	after, err := holdings(ctx)
	if err != nil {
		return err
	}
	var faults []error
	for _, what := range slices.Sorted(maps.Keys(b.before)) {
		if now, there := after[what]; !there {
			faults = append(faults, fmt.Errorf("%s is gone, and the tests did not make it", what))
		} else if now != b.before[what] {
			faults = append(faults, fmt.Errorf("%s was %q before the tests and is %q", what, b.before[what], now))
		}
	}
	for _, what := range slices.Sorted(maps.Keys(after)) {
		if strings.Contains(what, runID) || after[what] == leftBehind {
			faults = append(faults, fmt.Errorf("%s was left behind by the tests", what))
		}
	}
	rows, err := b.sql(contents)
	if err != nil {
		faults = append(faults, err)
	} else if rows != b.rows {
		faults = append(faults, fmt.Errorf("the bystander's database held %s, and holds %s", b.rows, rows))
	}
	if len(faults) == 0 {
		say(fmt.Sprintf("%d containers, volumes and networks that the tests did not make are as before; the database among them has %s", len(b.before), rows))
	}
	return errors.Join(faults...)
}

// remove takes away what was planted, and gives back the image name that builds took.
func (b *bystander) remove() error {
	var errs []error
	if b.container != "" {
		_, err := docker("rm", "-f", b.container)
		errs = append(errs, err)
	}
	for _, volume := range b.volumes {
		_, err := docker("volume", "rm", "-f", volume)
		errs = append(errs, err)
	}
	if b.qlib != "" {
		_, err := docker("tag", b.qlib, "qlib_src:latest")
		errs = append(errs, err)
	} else {
		_, _ = docker("rmi", "qlib_src:latest") // no test built it
	}
	return errors.Join(errs...)
}

// bystanderLabel tells whose bystander it is. Nothing looks for it to remove anything.
const bystanderLabel = "trading-platform.bystander"

// leftBehind is the state, in holdings, of an object of this run.
const leftBehind = "of this run"

// holdings describes every container, volume and network of the engine. Those of other runs of these tests are left out:
// they come and go.
func holdings(ctx context.Context) (map[string]string, error) {
	all := map[string]string{}
	add := func(labels map[string]string, what, state string) {
		switch {
		case ours(labels):
			all[what] = leftBehind
		case labels[bystanderLabel] != "" && labels[bystanderLabel] != runID: // another run's
		case labels[runLabel] == "" && !strings.HasPrefix(labels[plan.IdentityLabel], "tptest-"):
			all[what] = state
		}
	}
	containers, err := engine.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, err
	}
	for _, c := range containers.Items {
		found, err := engine.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
		if cerrdefs.IsNotFound(err) {
			continue // it went meanwhile, and was none to stay
		} else if err != nil {
			return nil, err
		}
		state := found.Container.State
		add(c.Labels, fmt.Sprintf("container %s (%.12s)", c.Names[0], c.ID), fmt.Sprintf("%s since %s", state.Status, state.StartedAt))
	}
	volumes, err := engine.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		return nil, err
	}
	for _, v := range volumes.Items {
		// Its CreatedAt is when its folder was last written to. The folder's inode tells it from another of that name, where
		// it can be seen: on an engine of this host, as root.
		state := "at " + v.Mountpoint
		if info, err := os.Stat(v.Mountpoint); err == nil {
			state += fmt.Sprintf(", inode %d", info.Sys().(*syscall.Stat_t).Ino)
		}
		add(v.Labels, "volume "+v.Name, state)
	}
	networks, err := engine.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		return nil, err
	}
	for _, n := range networks.Items {
		add(n.Labels, fmt.Sprintf("network %s (%.12s)", n.Name, n.ID), "made at "+n.Created.String())
	}
	images, err := engine.ImageList(ctx, client.ImageListOptions{Filters: client.Filters{}.Add("reference", runID+"*/*")})
	if err != nil {
		return nil, err
	}
	for _, i := range images.Items {
		for _, tag := range i.RepoTags {
			all["image "+tag] = leftBehind
		}
	}
	return all, nil
}

// docker runs the docker command line, two minutes at most, and gives what it prints on either stream.
func docker(arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", arguments...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		err = fmt.Errorf("docker %s: %w\n%s", strings.Join(arguments, " "), err, text)
	}
	return text, err
}
