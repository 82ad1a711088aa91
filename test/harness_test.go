//go:build live || official

// Package test drives the program on a real engine with the real pulumi command,
// the way a person does. Every stack here has names, an identity, ports and a subnet of
// its own, made for this run, and is gone when its test ends. Nothing else on the engine
// is touched, and TestMain proves that: see bystander.
package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"trading-platform/airgap"
	"trading-platform/catalog"
	"trading-platform/plan"
	"trading-platform/settings"
	resolver "trading-platform/stack"
	"trading-platform/workspace"
)

// What all tests share, made once by TestMain.
var (
	root       string            // the checkout
	shared     string            // a folder for this run
	engine     *client.Client    // the engine
	references map[string]string // air-gap images by key
)

// The provider that this run's stacks are made with, and how its plugin gets into a folder. With the tag official it is Pulumi's own.
var provider, installPlugin = settings.Offline, installOffline

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	var err error
	if root, err = filepath.Abs(".."); err != nil {
		return 0, err
	}
	if shared, err = os.MkdirTemp("", "platform-test-*"); err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(shared) }()
	if err := installPlugin(filepath.Join(shared, "pulumi-home", "plugins")); err != nil {
		return 0, err
	}
	if engine, err = client.New(client.FromEnv); err != nil {
		return 0, err
	}
	if references, err = airgap.References(root); err != nil {
		return 0, err
	}
	var keys []string
	for key := range references {
		keys = append(keys, key)
	}
	say := func(line string) { fmt.Fprintln(os.Stderr, line) }
	if err := airgap.Build(context.Background(), engine, root, keys, say); err != nil {
		return 0, err
	}
	for _, tool := range []string{"pulumi", "pulumi-language-go"} {
		build := exec.Command(filepath.Join(root, "tools", "build"), tool)
		if out, err := build.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("tools/build %s: %w\n%s", tool, err, out)
		}
	}
	ctx := context.Background()
	stranger, err := plantBystander(ctx)
	defer func() {
		if err := stranger.remove(); err != nil {
			say(err.Error())
		}
	}()
	if err != nil {
		return 0, err
	}
	code := m.Run()
	return code, stranger.check(ctx, say)
}

// installOffline builds the offline provider where init puts it, and as init builds it, so that no test's init replaces it.
func installOffline(plugins string) error {
	here, err := workspace.Open(root)
	if err != nil {
		return err
	}
	return here.BuildProvider(filepath.Join(plugins, "resource-docker-v"+settings.OfflineVersion, "pulumi-resource-docker"), settings.OfflineVersion)
}

// environ is the environment of a machine whose Pulumi keeps everything in home.
func environ(home string) []string {
	env := []string{
		"PULUMI_HOME=" + filepath.Join(home, "pulumi-home"),
		"PULUMI_BACKEND_URL=file://" + home,
		"PULUMI_CONFIG_PASSPHRASE=correct horse",
		"PULUMI_SKIP_UPDATE_CHECK=true",
		"PULUMI_GO_USE_RUN=true", // links the program once, not at each run
		"PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION=true",
		"PATH=" + filepath.Join(root, "tools", "bin") + ":" + os.Getenv("PATH"),
	}
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "PULUMI_") && !strings.HasPrefix(e, "PATH=") {
			env = append(env, e)
		}
	}
	return env
}

// stack is one Pulumi stack in a project folder of its own.
type stack struct {
	t      testing.TB
	name   string         // of the tracked file it starts from: base, dev, …
	dir    string         // the project's folder
	own    string         // its config file; empty for Pulumi.<name>.yaml in the project's folder
	prefix string         // of its names, and its identity
	engine *client.Client // where it lives; the engine that all tests share unless a test has one of its own
	host   string         // that engine's address; empty for the shared one
	swarm  bool           // it runs on a Swarm, of which that engine is a manager
	offset int
	subnet string
}

// newStack makes a stack from a tracked stack file, on air-gap images, with names
// and ports of its own. config is set over it. It is not up yet.
func newStack(t testing.TB, name string, config map[string]any) *stack {
	t.Helper()
	s := newPlace(t, name, t.TempDir())
	s.useProgram(root)
	s.configure(s.place())
	s.configure(map[string]any{"provider": provider, "images": images(), "disabled": []string{"grafana"}})
	s.configure(config)
	s.pulumi("stack", "init", name)
	t.Cleanup(s.remove)
	return s
}

// images points every stock service, and the reference app, at the air-gap images.
func images() map[string]any {
	all := map[string]any{settings.Reference: references[settings.Reference]}
	for _, s := range catalog.Services() {
		key := s.Name
		if s.Tier == catalog.Proxy {
			key = "nginx"
		}
		if s.App == "" && references[key] != "" {
			all[s.Name] = references[key]
		}
	}
	return all
}

// useProgram writes the project file for the program of a checkout.
func (s *stack) useProgram(checkout string) {
	s.t.Helper()
	var project map[string]any
	text, err := os.ReadFile(filepath.Join(root, "Pulumi.yaml"))
	require.NoError(s.t, err)
	require.NoError(s.t, yaml.Unmarshal(text, &project))
	project["main"] = checkout // the program is compiled there, as in the checkout itself
	text, err = yaml.Marshal(project)
	require.NoError(s.t, err)
	require.NoError(s.t, os.WriteFile(filepath.Join(s.dir, "Pulumi.yaml"), text, 0o600))
}

// file is the stack's config file.
func (s *stack) file() string {
	if s.own != "" {
		return s.own
	}
	return filepath.Join(s.dir, "Pulumi."+s.name+".yaml")
}

// plan is what the stack consists of, by its config file.
func (s *stack) plan() *plan.Plan {
	s.t.Helper()
	src, err := settings.FromFiles(s.name, root, s.file())
	require.NoError(s.t, err)
	p, _, err := resolver.Resolve(src)
	require.NotNil(s.t, p, "%v", err) // what is wrong with a plan is for the program to say
	return p
}

// services returns the names of the plan's containers, less the prefix.
func (s *stack) services() (names []string) {
	s.t.Helper()
	for _, service := range s.plan().Services {
		for _, name := range service.Containers {
			names = append(names, strings.TrimPrefix(name, s.prefix+"_"))
		}
	}
	return names
}

// targets returns the services that serve metrics.
func (s *stack) targets() (names []string) {
	s.t.Helper()
	for _, service := range s.plan().Services {
		if service.Metrics != "" {
			names = append(names, service.Name)
		}
	}
	return names
}

// configure sets keys of the stack file, which starts as the tracked one. nil removes a key.
func (s *stack) configure(config map[string]any) {
	s.t.Helper()
	text, err := os.ReadFile(s.file())
	if os.IsNotExist(err) {
		text, err = os.ReadFile(filepath.Join(root, "Pulumi."+s.name+".yaml"))
	}
	require.NoError(s.t, err)
	var file map[string]any
	require.NoError(s.t, yaml.Unmarshal(text, &file))
	keys := file["config"].(map[string]any)
	for key, value := range config {
		if !strings.HasPrefix(key, "docker:") {
			key = settings.Project + ":" + key
		}
		if value == nil {
			delete(keys, key)
		} else {
			keys[key] = value
		}
	}
	text, err = yaml.Marshal(file)
	require.NoError(s.t, err)
	require.NoError(s.t, os.WriteFile(s.file(), text, 0o600))
}

// try runs a pulumi command in the project and gives all it printed.
func (s *stack) try(args ...string) (string, error) {
	cmd := exec.CommandContext(s.t.Context(), filepath.Join(root, "tools", "bin", "pulumi"), args...)
	if s.t.Context().Err() != nil { // cleaning up after the test
		cmd = exec.Command(filepath.Join(root, "tools", "bin", "pulumi"), args...)
	}
	cmd.Dir, cmd.Env = s.dir, append(environ(shared), "PULUMI_BACKEND_URL=file://"+s.dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// pulumi runs a pulumi command that must succeed.
func (s *stack) pulumi(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	require.NoError(s.t, err, "pulumi %s\n%s", strings.Join(args, " "), out)
	return out
}

func (s *stack) up() string {
	s.t.Helper()
	return s.pulumi("up", "-s", s.name, "--yes", "--skip-preview", "--non-interactive")
}

func (s *stack) refresh() {
	s.t.Helper()
	s.pulumi("refresh", "-s", s.name, "--yes", "--skip-preview", "--non-interactive")
}

func (s *stack) destroy() {
	s.t.Helper()
	s.pulumi("destroy", "-s", s.name, "--yes", "--skip-preview", "--non-interactive")
}

// unchanged asserts that a preview finds nothing to do.
func (s *stack) unchanged(when string) {
	s.t.Helper()
	out, err := s.try("preview", "-s", s.name, "--diff", "--expect-no-changes", "--non-interactive")
	require.NoError(s.t, err, "%s:\n%s", when, out)
}

// remove takes the stack and all it left on the engine away.
func (s *stack) remove() {
	if s.t.Failed() {
		for _, c := range s.containers() {
			s.t.Logf("%s (%s), last lines:\n%s", c.Names[0], c.Status, s.logs(c.ID, "15"))
		}
	}
	if out, err := s.try("destroy", "-s", s.name, "--yes", "--skip-preview", "--non-interactive"); err != nil {
		s.t.Logf("destroy: %v\n%s", err, out)
	}
	s.sweep()
}

// sweep removes what carries the stack's identity, and nothing else.
func (s *stack) sweep() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mine := client.Filters{}.Add("label", plan.IdentityLabel+"="+s.prefix)
	var errs []error
	containers, err := s.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: mine})
	errs = append(errs, err)
	for _, c := range containers.Items {
		_, err := s.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		errs = append(errs, err)
	}
	volumes, err := s.engine.VolumeList(ctx, client.VolumeListOptions{Filters: mine})
	errs = append(errs, err)
	for _, v := range volumes.Items {
		_, err := s.engine.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{})
		errs = append(errs, err)
	}
	networks, err := s.engine.NetworkList(ctx, client.NetworkListOptions{Filters: mine})
	errs = append(errs, err)
	for _, n := range networks.Items {
		_, err := s.engine.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{})
		errs = append(errs, err)
	}
	// Images have no labels of the stack: what it built is in a repository with its identity as the name.
	images, err := s.engine.ImageList(ctx, client.ImageListOptions{Filters: client.Filters{}.Add("reference", s.prefix+"/*")})
	errs = append(errs, err)
	for _, i := range images.Items {
		for _, tag := range i.RepoTags {
			_, err := s.engine.ImageRemove(ctx, tag, client.ImageRemoveOptions{PruneChildren: true})
			errs = append(errs, err)
		}
	}
	assert.NoError(s.t, errors.Join(errs...))
}

// containers returns the stack's containers, stopped ones too.
func (s *stack) containers() []container.Summary {
	all, err := s.engine.ContainerList(context.Background(), client.ContainerListOptions{All: true})
	require.NoError(s.t, err)
	var mine []container.Summary
	for _, c := range all.Items {
		if strings.HasPrefix(c.Names[0], "/"+s.prefix+"_") {
			mine = append(mine, c)
		}
	}
	return mine
}

// names returns the services whose containers are there.
func (s *stack) names() []string {
	var names []string
	for _, c := range s.containers() {
		names = append(names, strings.TrimPrefix(c.Names[0], "/"+s.prefix+"_"))
	}
	return names
}

// ids returns the container ids by service, so that a replacement shows.
func (s *stack) ids() map[string]string {
	ids := map[string]string{}
	for _, c := range s.containers() {
		ids[strings.TrimPrefix(c.Names[0], "/"+s.prefix+"_")] = c.ID
	}
	return ids
}

// replaced returns the services whose container is another than before.
func (s *stack) replaced(before map[string]string) []string {
	var names []string
	for name, id := range s.ids() {
		if before[name] != id {
			names = append(names, name)
		}
	}
	return names
}

func (s *stack) volumes() []string {
	all, err := s.engine.VolumeList(context.Background(), client.VolumeListOptions{})
	require.NoError(s.t, err)
	var names []string
	for _, v := range all.Items {
		if strings.HasPrefix(v.Name, s.prefix+"_") {
			names = append(names, v.Name)
		}
	}
	return names
}

func (s *stack) networks() []string {
	all, err := s.engine.NetworkList(context.Background(), client.NetworkListOptions{})
	require.NoError(s.t, err)
	var names []string
	for _, n := range all.Items {
		if strings.HasPrefix(n.Name, s.prefix+"_") {
			names = append(names, n.Name)
		}
	}
	return names
}

func (s *stack) inspect(service string) container.InspectResponse {
	s.t.Helper()
	c, err := s.engine.ContainerInspect(context.Background(), s.prefix+"_"+service, client.ContainerInspectOptions{})
	require.NoError(s.t, err)
	return c.Container
}

// logs returns a container's last lines.
func (s *stack) logs(id, lines string) string {
	out, _ := s.docker("logs", "--tail", lines, id)
	return out
}

// docker runs the docker command line on the stack's engine.
func (s *stack) docker(arguments ...string) (string, error) {
	if s.host != "" {
		arguments = append([]string{"-H", s.host}, arguments...)
	}
	return docker(arguments...)
}

// container returns the name of a service's container; of a Swarm, that on the stack's own engine.
func (s *stack) container(service string) string {
	name := s.prefix + "_" + service
	if !s.swarm {
		return name
	}
	all, err := s.engine.ContainerList(context.Background(), client.ContainerListOptions{
		Filters: client.Filters{}.Add("label", "com.docker.swarm.service.name="+name),
	})
	if err != nil || len(all.Items) == 0 {
		return name
	}
	return all.Items[0].ID
}

// exec runs a command in a service's container.
func (s *stack) exec(service string, command ...string) string {
	s.t.Helper()
	out, err := s.docker(append([]string{"exec", s.container(service)}, command...)...)
	require.NoError(s.t, err)
	return out
}

// sql runs a statement in the stack's database, over TCP.
func (s *stack) sql(statement string) string {
	s.t.Helper()
	out, err := s.trySQL(statement)
	require.NoError(s.t, err)
	return out
}

// trySQL is sql for a poll, which must be able to go on after an error.
func (s *stack) trySQL(statement string) (string, error) {
	return s.docker("exec", s.container("postgres"), "psql", "-U", "trader", "-h", "127.0.0.1", "-tAc", statement)
}

// url is an address that the stack publishes on this host.
func (s *stack) url(port int, path string) string {
	return fmt.Sprintf("http://127.0.0.1:%d%s", port+s.offset, path)
}
