package preflight

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"trading-platform/catalog"
	"trading-platform/plan"
	"trading-platform/settings"
)

// data compares the version of the databases' data with the version of their images.
// PostgreSQL cannot read the data of another major version, and Redis cannot read that of
// a newer version.
func (c *check) data() {
	if s, ok := c.plan.Lookup("postgres"); ok && !c.opened(s) {
		c.postgresData(s)
	}
	if s, ok := c.plan.Lookup("redis"); ok && !c.opened(s) {
		c.redisData(s)
	}
}

// opened reports whether the stack's own container already serves the data, from the image and with the
// password of the plan. Then nothing would change, and reading files of the volume would take 0.2 s.
func (c *check) opened(s plan.Service) bool {
	own, mine := c.find(s.Containers[0])
	if !mine || !strings.HasSuffix(own.Status, "(healthy)") {
		return false
	}
	for _, m := range s.Mounts {
		if m.Volume != "" && !slices.ContainsFunc(own.Mounts, func(o container.MountPoint) bool { return o.Name == c.plan.Volume(m.Volume).Name }) {
			return false
		}
	}
	image, err := c.engine.ImageInspect(c.ctx, s.Image.Reference)
	if err != nil || image.ID != own.ImageID {
		return false
	}
	found, err := c.engine.ContainerInspect(c.ctx, own.ID, client.ContainerInspectOptions{})
	if err != nil || found.Container.Config == nil {
		return false
	}
	for name := range catalog.LocalOnly {
		if value := s.Value(name); value != "" && !slices.Contains(found.Container.Config.Env, name+"="+value) {
			return false
		}
	}
	return true
}

func (c *check) postgresData(s plan.Service) {
	if stack, volume := c.securedBy(s); stack != "" {
		c.faults.Add(settings.Project+":POSTGRES_PASSWORD",
			"platform init -s "+c.plan.Stack+" generates one, or: "+settings.SetSecretCommand(c.plan.Stack, "POSTGRES_PASSWORD"),
			"the secured stack %s has used the database in volume %s, and this stack would set its password to the public default", stack, volume)
	}
	image := c.imageVersion(s, "PG_MAJOR")
	text, volume := c.readData(s, "PG_VERSION")
	have, err := strconv.Atoi(strings.TrimSpace(text))
	want, err2 := strconv.Atoi(strings.Split(image, ".")[0])
	if err != nil || err2 != nil || have == want {
		return
	}
	fix := "run the version that wrote it: " + c.config("--path images.postgres", "postgres:"+strconv.Itoa(have))
	if have < want {
		fix = "move the data to the new version: platform upgrade -s " + c.plan.Stack + "; or " + fix
	}
	c.faults.Add("volume "+volume, fix,
		"holds data of PostgreSQL %d, and the image %s is version %d; nothing in it was changed", have, s.Image, want)
}

// usesPublicPassword reports whether the stack would set the password of its database to the public default.
func usesPublicPassword(postgres plan.Service) bool {
	return catalog.IsLocalOnly("POSTGRES_PASSWORD", postgres.Value("POSTGRES_PASSWORD"))
}

// securedBy returns the secured stack that has used the database in a volume, if this stack would set its password to the public default.
func (c *check) securedBy(s plan.Service) (stack, volume string) {
	if !usesPublicPassword(s) {
		return "", ""
	}
	mark, volume := c.readData(s, catalog.SecuredMark)
	return strings.TrimSpace(mark), volume
}

// SecuredDatabase reports whether a plan would set the password of a database that a secured stack has used to the public default.
func SecuredDatabase(ctx context.Context, engine client.APIClient, p *plan.Plan) (bool, error) {
	s, ok := p.Lookup("postgres")
	if !ok || !usesPublicPassword(s) {
		return false, nil
	}
	c := &check{ctx: ctx, engine: engine, plan: p}
	if err := c.listContainers(); err != nil || c.opened(s) {
		return false, err
	}
	if err := c.listVolumes(); err != nil {
		return false, err
	}
	stack, _ := c.securedBy(s)
	return stack != "", nil
}

// redisBase finds the base file of the append-only file in its manifest. Each rewrite creates a new base file.
var redisBase = regexp.MustCompile(`file (\S+\.base\.rdb) `)

// redisVersion finds the server's version in the header of an RDB file, where it is an auxiliary field.
var redisVersion = regexp.MustCompile(`redis-ver.([0-9]+\.[0-9]+)\.[0-9]+`)

func (c *check) redisData(s plan.Service) {
	image := c.imageVersion(s, "REDIS_VERSION")
	manifest, _ := c.readData(s, "appendonlydir/appendonly.aof.manifest")
	base := redisBase.FindStringSubmatch(manifest)
	if base == nil {
		return
	}
	header, volume := c.readData(s, "appendonlydir/"+base[1])
	found := redisVersion.FindStringSubmatch(header)
	if found == nil {
		return
	}
	if !strings.Contains(image, ".") {
		image += ".99" // a tag such as 7-alpine means the newest 7.x
	}
	have, err := settings.ParseVersion(found[1])
	want, err2 := settings.ParseVersion(image)
	if err != nil || err2 != nil || want.AtLeast(have.Major, have.Minor) {
		return
	}
	c.faults.Add("volume "+volume,
		fmt.Sprintf("%s; or start with an empty volume: %s after docker volume create",
			c.config("--path images.redis", "redis:"+found[1]+"-alpine"),
			c.config("--path volumes.redisdata", c.plan.NamePrefix+"_redisdata_new")),
		"holds data of Redis %s, newer than the image %s; nothing in it was changed", found[1], s.Image)
}

// tagVersion matches the version at the start of an image's tag, and not a registry's port, which a slash follows.
var tagVersion = regexp.MustCompile(`:v?([0-9]+(\.[0-9]+)*)[^/]*$`)

// imageVersion returns the version of the server in an image: from the variable that the
// official images set, or else from the image's tag. It returns "" if neither has one.
func (c *check) imageVersion(s plan.Service, variable string) string {
	if image, err := c.engine.ImageInspect(c.ctx, s.Image.Reference); err == nil && image.Config != nil {
		for _, e := range image.Config.Env {
			if value, ok := strings.CutPrefix(e, variable+"="); ok {
				return value
			}
		}
	}
	if found := tagVersion.FindStringSubmatch(s.Image.Reference); found != nil {
		return found[1]
	}
	return ""
}

// readData reads the start of a file in a database's volume, through a container that
// mounts the volume, or else through one that it creates and never starts. It returns
// nothing if the volume, the file or the image does not exist.
func (c *check) readData(s plan.Service, file string) (content, volume string) {
	i := slices.IndexFunc(s.Mounts, func(m plan.Mount) bool { return m.Volume != "" })
	if i < 0 {
		return "", ""
	}
	mount := s.Mounts[i]
	volume = c.plan.Volume(mount.Volume).Name
	if !c.hasVolume(volume) {
		return "", volume
	}
	for _, o := range c.containers {
		for _, m := range o.Mounts {
			if m.Name == volume {
				return c.readFile(o.ID, path.Join(m.Destination, file)), volume
			}
		}
	}
	made, err := c.engine.ContainerCreate(c.ctx, client.ContainerCreateOptions{
		Config:     &container.Config{Image: s.Image.Reference, Labels: c.plan.OwnLabels()},
		HostConfig: &container.HostConfig{Binds: []string{volume + ":" + mount.Path + ":ro,nocopy"}},
	})
	if err != nil {
		return "", volume // the engine does not have the image yet
	}
	defer func() {
		// Remove it also after an interrupt. RemoveVolumes removes only the anonymous volumes
		// that its image declares.
		_, _ = c.engine.ContainerRemove(context.WithoutCancel(c.ctx), made.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	}()
	return c.readFile(made.ID, path.Join(mount.Path, file)), volume
}

// readFile returns the first 64 KiB of a file in a container, which need not be running.
func (c *check) readFile(id, file string) string {
	got, err := c.engine.CopyFromContainer(c.ctx, id, client.CopyFromContainerOptions{SourcePath: file})
	if err != nil {
		return ""
	}
	defer func() { _ = got.Content.Close() }()
	archive := tar.NewReader(got.Content)
	if _, err := archive.Next(); err != nil {
		return ""
	}
	content, _ := io.ReadAll(io.LimitReader(archive, 64<<10))
	return string(content)
}
