package preflight

import (
	"archive/tar"
	"bytes"
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
func (c *check) data(containers []container.Summary) {
	if s, ok := c.plan.Lookup("postgres"); ok && !c.opened(s, containers) {
		c.postgresData(s, containers)
	}
	if s, ok := c.plan.Lookup("redis"); ok && !c.opened(s, containers) {
		c.redisData(s, containers)
	}
}

// opened reports whether the stack's own container already serves the data, from the image and with the
// password of the plan. Then nothing would change, and reading files of the volume would take 0.2 s.
func (c *check) opened(s plan.Service, containers []container.Summary) bool {
	i := slices.IndexFunc(containers, func(o container.Summary) bool {
		return c.plan.Owns(o.Labels) && strings.HasSuffix(o.Status, "(healthy)") && slices.Contains(o.Names, "/"+s.Containers[0])
	})
	if i < 0 {
		return false
	}
	for _, m := range s.Mounts {
		if m.Volume != "" && !slices.ContainsFunc(containers[i].Mounts, func(o container.MountPoint) bool { return o.Name == c.plan.Volume(m.Volume).Name }) {
			return false
		}
	}
	image, err := c.engine.ImageInspect(c.ctx, s.Image.Reference)
	if err != nil || image.ID != containers[i].ImageID {
		return false
	}
	found, err := c.engine.ContainerInspect(c.ctx, containers[i].ID, client.ContainerInspectOptions{})
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

func (c *check) postgresData(s plan.Service, containers []container.Summary) {
	c.securedData(s, containers)
	image := c.imageVersion(s, "PG_MAJOR")
	text, volume := c.readData(s, containers, "PG_VERSION")
	have, err := strconv.Atoi(strings.TrimSpace(string(text)))
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

// securedData adds a fault if the stack would set the public default password on a
// database that a secured stack has used.
func (c *check) securedData(s plan.Service, containers []container.Summary) {
	if !catalog.IsLocalOnly("POSTGRES_PASSWORD", s.Value("POSTGRES_PASSWORD")) {
		return
	}
	mark, volume := c.readData(s, containers, catalog.SecuredMark)
	if len(mark) == 0 {
		return
	}
	c.faults.Add(settings.Project+":POSTGRES_PASSWORD",
		"platform init -s "+c.plan.Stack+" generates one, or: "+settings.SetSecretCommand(c.plan.Stack, "POSTGRES_PASSWORD"),
		"the secured stack %s has used the database in volume %s, and this stack would set its password to the public default",
		bytes.TrimSpace(mark), volume)
}

// SecuredDatabase reports whether a secured stack has used the database that the plan's
// PostgreSQL would open. It returns false if the engine has no such database.
func SecuredDatabase(ctx context.Context, engine client.APIClient, p *plan.Plan) (bool, error) {
	s, ok := p.Lookup("postgres")
	if !ok {
		return false, nil
	}
	containers, err := engine.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return false, fmt.Errorf("asking the engine for its containers: %w", err)
	}
	c := &check{ctx: ctx, engine: engine, plan: p}
	if catalog.IsLocalOnly("POSTGRES_PASSWORD", s.Value("POSTGRES_PASSWORD")) && c.opened(s, containers.Items) {
		return false, nil // its password is the public default
	}
	mark, _ := c.readData(s, containers.Items, catalog.SecuredMark)
	return len(mark) > 0, nil
}

// redisBase finds the base file of the append-only file in its manifest. Each rewrite creates a new base file.
var redisBase = regexp.MustCompile(`file (\S+\.base\.rdb) `)

// redisVersion finds the server's version in the header of an RDB file, where it is an auxiliary field.
var redisVersion = regexp.MustCompile(`redis-ver.([0-9]+\.[0-9]+)\.[0-9]+`)

func (c *check) redisData(s plan.Service, containers []container.Summary) {
	image := c.imageVersion(s, "REDIS_VERSION")
	manifest, _ := c.readData(s, containers, "appendonlydir/appendonly.aof.manifest")
	base := redisBase.FindSubmatch(manifest)
	if base == nil {
		return
	}
	header, volume := c.readData(s, containers, "appendonlydir/"+string(base[1]))
	found := redisVersion.FindSubmatch(header)
	if found == nil || image == "" {
		return
	}
	var have, want settings.Version
	_, err := fmt.Sscanf(string(found[1]), "%d.%d", &have.Major, &have.Minor)
	n, _ := fmt.Sscanf(image, "%d.%d", &want.Major, &want.Minor)
	if n == 1 {
		want.Minor = 99 // a tag such as 7-alpine means the newest 7.x
	}
	if err != nil || n == 0 || want.AtLeast(have.Major, have.Minor) {
		return
	}
	c.faults.Add("volume "+volume,
		fmt.Sprintf("%s; or start with an empty volume: %s after docker volume create",
			c.config("--path images.redis", "redis:"+string(found[1])+"-alpine"),
			c.config("--path volumes.redisdata", c.plan.NamePrefix+"_redisdata_new")),
		"holds data of Redis %s, newer than the image %s; nothing in it was changed", found[1], s.Image)
}

// tagVersion matches the version at the start of an image's tag, and not a registry's port, which a slash follows.
var tagVersion = regexp.MustCompile(`:v?([0-9]+(\.[0-9]+)*)[^/]*$`)

// imageVersion returns the version of the server in an image: from the variable that the
// official images set, or else from the image's tag. It returns "" if neither has one.
func (c *check) imageVersion(s plan.Service, variable string) string {
	if s.Image.Reference == "" {
		return ""
	}
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
func (c *check) readData(s plan.Service, containers []container.Summary, file string) (content []byte, volume string) {
	i := 0
	for i < len(s.Mounts) && s.Mounts[i].Volume == "" {
		i++
	}
	if i == len(s.Mounts) {
		return nil, ""
	}
	mount := s.Mounts[i]
	volume = c.plan.Volume(mount.Volume).Name
	if _, err := c.engine.VolumeInspect(c.ctx, volume, client.VolumeInspectOptions{}); err != nil {
		return nil, volume
	}
	for _, o := range containers {
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
		return nil, volume // the engine does not have the image yet
	}
	defer func() {
		// Remove it also after an interrupt. RemoveVolumes removes only the anonymous volumes
		// that its image declares.
		_, _ = c.engine.ContainerRemove(context.WithoutCancel(c.ctx), made.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	}()
	return c.readFile(made.ID, path.Join(mount.Path, file)), volume
}

// readFile returns the first 64 KiB of a file in a container, which need not be running.
func (c *check) readFile(id, file string) []byte {
	got, err := c.engine.CopyFromContainer(c.ctx, id, client.CopyFromContainerOptions{SourcePath: file})
	if err != nil {
		return nil
	}
	defer func() { _ = got.Content.Close() }()
	archive := tar.NewReader(got.Content)
	if _, err := archive.Next(); err != nil {
		return nil
	}
	content, _ := io.ReadAll(io.LimitReader(archive, 64<<10))
	return content
}
