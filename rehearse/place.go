package rehearse

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	random "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/moby/moby/client"

	"trading-platform/catalog"
	"trading-platform/plan"
	"trading-platform/stack"
)

// A rehearsal's name is its identity on the engine, the beginning of all its names there, and the name of its folder. It begins with a
// word and a hash of the user, by which a later rehearsal finds what a killed one has left, and not what others run.
func owner() string { return "rehearsal-" + stack.DefaultIdentity("file:///", "", "")[:6] + "-" }

// claim makes the rehearsal's name, and the folder for everything that it writes, which is locked while it runs.
func claim() (id string, lock *flock.Flock, err error) {
	id = owner() + strings.ToLower(rand.Text()[:8])
	lock = flock.New(folder(id) + ".lock")
	return id, lock, errors.Join(os.MkdirAll(filepath.Dir(folder(id)), 0o700), lock.Lock(), os.MkdirAll(folder(id), 0o700))
}

// folder is not among the temporary files, because another rehearsal has to find it whatever TMPDIR is.
func folder(id string) string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return filepath.Join(cache, "trading-platform", "rehearsals", id)
}

// sweep removes what rehearsals that were killed have left.
func sweep(ctx context.Context, engine *client.Client, say func(string)) error {
	left, err := leftovers(ctx, engine, plan.IdentityLabel)
	ids := map[string]bool{}
	for _, l := range left {
		ids[l.identity] = true
	}
	folders, _ := filepath.Glob(folder(owner() + "*")) // the pattern is valid
	for _, f := range folders {
		ids[strings.TrimSuffix(filepath.Base(f), ".lock")] = true
	}
	for id := range ids {
		if !strings.HasPrefix(id, owner()) {
			continue
		}
		lock := flock.New(folder(id) + ".lock")
		_ = os.MkdirAll(filepath.Dir(folder(id)), 0o700) // locking reports what is wrong
		if free, failed := lock.TryLock(); free {        // else it is running
			say("removing what an interrupted rehearsal has left: " + id)
			err = errors.Join(err, remove(ctx, engine, id), lock.Unlock())
		} else if failed != nil {
			err = errors.Join(err, failed)
		}
	}
	return err
}

// leftover is an object on the engine, and its stack's identity.
type leftover struct {
	identity string
	remove   func() error
}

// leftovers lists the objects with a label, in the order in which they can be removed.
func leftovers(ctx context.Context, engine *client.Client, label string) (all []leftover, err error) {
	mine := client.Filters{}.Add("label", label)
	add := func(labels map[string]string, remove func() error) {
		all = append(all, leftover{labels[plan.IdentityLabel], remove})
	}
	containers, err1 := engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: mine})
	for _, c := range containers.Items {
		add(c.Labels, func() error {
			_, err := engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
			return err
		})
	}
	networks, err2 := engine.NetworkList(ctx, client.NetworkListOptions{Filters: mine})
	for _, n := range networks.Items {
		add(n.Labels, func() error {
			_, err := engine.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{})
			return err
		})
	}
	volumes, err3 := engine.VolumeList(ctx, client.VolumeListOptions{Filters: mine})
	for _, v := range volumes.Items {
		add(v.Labels, func() error {
			_, err := engine.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{})
			return err
		})
	}
	return all, errors.Join(err1, err2, err3)
}

// remove ends the programs of a rehearsal, and removes all that it has on the engine and on this machine.
func remove(ctx context.Context, engine *client.Client, id string) error {
	endPrograms(folder(id) + string(os.PathSeparator))
	left, failed := leftovers(ctx, engine, plan.IdentityLabel+"="+id)
	for _, l := range left {
		failed = errors.Join(failed, l.remove())
	}
	images, err := engine.ImageList(ctx, client.ImageListOptions{Filters: client.Filters{}.Add("reference", id+"*/*")})
	failed = errors.Join(failed, err)
	for _, i := range images.Items {
		_, err := engine.ImageRemove(ctx, i.ID, client.ImageRemoveOptions{Force: true})
		failed = errors.Join(failed, err)
	}
	if failed != nil {
		return fmt.Errorf("removing rehearsal %s: %w. Fix: run `platform rehearse` again, which first removes the rest", id, failed)
	}
	return errors.Join(os.RemoveAll(folder(id)), os.RemoveAll(folder(id)+".lock"))
}

// endPrograms ends the programs that run from a folder, and waits for them. A killed rehearsal leaves its up, which would go on creating
// containers.
func endPrograms(folder string) {
	for deadline, left := time.Now().Add(time.Minute), true; left && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		list, _ := exec.Command("ps", "-eo", "pid=,stat=,args=").Output() // a system without ps has none that are left
		left = false
		for line := range strings.Lines(string(list)) {
			fields := strings.Fields(line)
			pid, err := strconv.Atoi(fields[0])
			if err != nil || len(fields) < 3 || strings.HasPrefix(fields[1], "Z") || !strings.HasPrefix(fields[2], folder) {
				continue
			}
			if process, err := os.FindProcess(pid); err == nil {
				left = process.Signal(syscall.SIGTERM) == nil || left
			}
		}
	}
}

// Port offsets lie between these, so that the ports stay clear of a stack with the default ones, and below those that a system gives out.
const lowestOffset, highestOffset = 10000, 23000

// freeOffset chooses a port offset whose ports nobody listens on. The up finds what this cannot see, and refuses.
func freeOffset() int {
	for {
		offset := lowestOffset + random.IntN(highestOffset-lowestOffset) //nolint:gosec // not a secret
		if !slices.ContainsFunc(catalog.Services(), func(s catalog.Service) bool {
			return slices.ContainsFunc(s.Ports, func(p catalog.Port) bool {
				l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Host+offset)))
				if err == nil {
					_ = l.Close()
				}
				return err != nil
			})
		}) {
			return offset
		}
	}
}

// freeSubnet chooses a subnet that no network of this host overlaps. An engine's networks are among them, unless it is on another machine.
func freeSubnet() (string, error) {
	addresses, err := net.InterfaceAddrs()
	for range 1000 {
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(64 + random.IntN(192)), byte(16 * random.IntN(16))}), 20) //nolint:gosec // not a secret
		if !slices.ContainsFunc(addresses, func(a net.Addr) bool {
			taken, err := netip.ParsePrefix(a.String())
			return err == nil && taken.Overlaps(subnet)
		}) {
			return subnet.String(), err
		}
	}
	return "", errors.New("no subnet in 10.64.0.0 to 10.255.255.255 is free for the rehearsal. Fix: docker network prune")
}
