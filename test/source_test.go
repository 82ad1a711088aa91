//go:build live

package test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
	"trading-platform/plan"
	"trading-platform/settings"
	resolver "trading-platform/stack"
)

// TestSourceDir runs the dev profile from a checkout of the platform.
func TestSourceDir(t *testing.T) {
	t.Parallel()
	checkout := newCheckout(t)
	s := newStack(t, "dev", map[string]any{"sourceDir": checkout.dir})
	s.configure(map[string]any{"env": map[string]any{"WEB_CONSOLE_USER": "admin", "WEB_CONSOLE_PASSWORD": "admin", "WEB_CONSOLE_UID": 1001}})

	t.Run("what the checkout lacks is one error, before anything is made", func(t *testing.T) {
		s := s.in(t)
		gone := []string{"apps/orchestrator/Dockerfile", "apps/signal_service/qlib_placeholder"}
		for _, path := range gone {
			checkout.move(path, path+".away")
		}
		const base = "registry.invalid/platform/base:1"
		good := map[string]string{}
		for _, app := range []string{"market_data_service", "model_registry"} {
			path := "apps/" + app + "/Dockerfile"
			good[path] = checkout.read(path)
			checkout.write(path, strings.ReplaceAll(good[path], references["reference"], base))
		}
		out, err := s.try("up", "-s", s.name, "--yes", "--skip-preview", "--non-interactive")
		require.Error(t, err)
		assert.Contains(t, out, "3 things are wrong, and nothing was changed")
		for i, use := range []string{"orchestrator is built from it", "signal_service is built with it"} {
			assert.Contains(t, out, checkout.path(gone[i])+": does not exist, and "+use)
			checkout.move(gone[i]+".away", gone[i])
		}
		assert.Contains(t, out, "image "+base+": is not available, and market_data_service, model_registry would be built from it")
		for path, text := range good {
			checkout.write(path, text)
		}
		assert.Empty(t, s.names())
		assert.Empty(t, s.networks())
		assert.Empty(t, s.volumes())
	})
	t.Run("a preview builds nothing", func(t *testing.T) {
		s := s.in(t)
		s.pulumi("preview", "-s", s.name, "--non-interactive")
		for _, app := range checkout.apps {
			assert.Empty(t, s.builtImage(app))
		}
		assert.NoDirExists(t, checkout.path("notebooks"), "and makes no folder")
	})
	out := s.up()
	for _, folder := range []string{"data/models", "artifacts", "notebooks", "apps/web_console_ng/certs"} {
		assert.Contains(t, out, checkout.path(folder), "it says what it makes")
		info, err := os.Stat(checkout.path(folder))
		require.NoError(t, err)
		assert.EqualValues(t, os.Geteuid(), info.Sys().(*syscall.Stat_t).Uid, folder)
	}
	assertAllHealthy(t, s, slices.Concat(baseServices, devServices)...)
	s.unchanged("right after up")

	t.Run("containers run the checkout's code as the platform does", func(t *testing.T) {
		s := s.in(t)
		for _, service := range []string{"orchestrator", "signal_service", "backtest_worker_dev", "web_console_dev"} {
			app := strings.NewReplacer("backtest_worker_dev", "backtest_worker", "web_console_dev", "web_console_ng").Replace(service)
			assert.Equal(t, s.builtImage(app), s.inspect(service).Image, service)
			assert.Equal(t, "1", s.exec(service, "cat", "/app/version"), service)
		}
		assert.Equal(t, "-m apps.backtest_worker.entrypoint", s.exec("backtest_worker_dev", "cat", "/tmp/run-by"), "the catalog's command")
		assert.Equal(t, "-m apps.orchestrator.main", s.exec("orchestrator", "cat", "/tmp/run-by"), "the image's own")
		assert.Equal(t, "1001:1000", s.exec("web_console_dev", "sh", "-c", "echo $(id -u):$(id -g)"), "build arguments APP_UID and APP_GID")
		assert.Equal(t, "placeholder", s.exec("signal_service", "cat", "/opt/qlib_src/version"), "from the build context qlib_src")
	})
	t.Run("folders of the checkout are mounted", func(t *testing.T) {
		s := s.in(t)
		const ro, rw = ":ro", ":rw"
		for service, want := range map[string][]string{
			"execution_gateway":   {"apps/web_console_ng/certs:/app/apps/web_console_ng/certs" + ro},
			"signal_service":      {"data:/app/data" + ro},
			"market_data_service": nil,
			"model_registry":      {"data/models:/app/data/models" + rw},
			"orchestrator":        nil,
			"backtest_worker_dev": {"data:/app/data/market_data" + ro},
			"web_console_dev": {
				"apps/web_console_ng/certs:/app/apps/web_console_ng/certs" + ro, "artifacts:/app/artifacts" + rw, "data:/app/data" + rw,
				"data/models:/app/data/models" + rw, "notebooks:/app/notebooks" + rw,
			},
		} {
			var got []string
			for _, m := range s.inspect(service).Mounts {
				if m.Type == "bind" {
					from, err := filepath.Rel(checkout.dir, m.Source)
					require.NoError(t, err)
					got = append(got, from+":"+m.Destination+map[bool]string{true: rw, false: ro}[m.RW])
				}
			}
			assert.ElementsMatch(t, want, got, service)
		}
		checkout.write("data/models/momentum-1", "weights")
		assert.Equal(t, "weights", s.exec("model_registry", "cat", "/app/data/models/momentum-1"))
	})
	t.Run("an edit replaces the services of that app alone", func(t *testing.T) {
		s := s.in(t)
		before := s.ids()
		checkout.write("apps/orchestrator/version", "2\n")
		s.up()
		assert.Equal(t, []string{"orchestrator"}, s.replaced(before))
		assert.Equal(t, "2", s.exec("orchestrator", "cat", "/app/version"))

		before = s.ids()
		checkout.write("apps/signal_service/qlib_placeholder/version", "the real one\n")
		s.up()
		assert.Equal(t, []string{"signal_service"}, s.replaced(before), "an edit of its further build context")
		assert.Equal(t, "the real one", s.exec("signal_service", "cat", "/opt/qlib_src/version"))
		s.unchanged("after the edits")
	})
	t.Run("an edit of what is ignored changes nothing", func(t *testing.T) {
		s := s.in(t)
		for _, path := range []string{"README.md", "data/prices.csv", "notebooks/idea.ipynb", "apps/web_console_ng/certs/key.pem"} {
			checkout.write(path, time.Now().String())
		}
		s.unchanged("after edits that .dockerignore covers")
	})
	t.Run("a build that fails says where and why, and stops nothing", func(t *testing.T) {
		s := s.in(t)
		before := s.ids()
		good := checkout.read("apps/orchestrator/Dockerfile")
		step := `RUN echo compiling the strategy && echo no module named alpha >&2 && exit 7`
		checkout.write("apps/orchestrator/Dockerfile", good+step+"\n")
		out, err := s.try("up", "-s", s.name, "--yes", "--skip-preview", "--non-interactive")
		require.Error(t, err)
		assert.Contains(t, out, "image "+s.prefix+"/orchestrator:local could not be built")
		assert.Contains(t, out, "RUN echo compiling the strategy", "the step")
		assert.Contains(t, out, "no module named alpha", "its last lines")
		assert.Contains(t, out, "exit code: 7")
		assert.Empty(t, s.replaced(before))
		assert.Equal(t, "healthy", string(s.inspect("orchestrator").State.Health.Status), "the old one runs on")

		checkout.write("apps/orchestrator/Dockerfile", good)
		s.up()
		assert.Empty(t, s.replaced(before))
	})
	t.Run("another stack's folder of the same name is not taken", func(t *testing.T) {
		s := s.in(t)
		// What another checkout's build leaves behind.
		buildImage(t, "qlib_src:latest", "FROM "+references["reference"]+"\nUSER root\nRUN echo another checkout >/version\n")
		checkout.write("apps/signal_service/version", "2\n")
		s.up()
		assert.Equal(t, "2", s.exec("signal_service", "cat", "/app/version"))
		assert.Equal(t, "the real one", s.exec("signal_service", "cat", "/opt/qlib_src/version"))
	})
}

// builtImage returns the id of the image that the stack built for an app; empty for none.
func (s *stack) builtImage(app string) string {
	s.t.Helper()
	images, err := engine.ImageList(s.t.Context(), client.ImageListOptions{Filters: client.Filters{}.Add("reference", s.prefix+"/"+app+":local")})
	require.NoError(s.t, err)
	if len(images.Items) == 0 {
		return ""
	}
	return images.Items[0].ID
}

// checkout is a checkout of the platform that a test may edit: testdata/checkout, and an app
// for each that the catalog builds for the stack dev. An app is the reference app with the
// contract of its service, probed and run as the platform's own images are.
type checkout struct {
	t    *testing.T
	dir  string
	apps []string
}

func newCheckout(t *testing.T) *checkout {
	t.Helper()
	c := &checkout{t: t, dir: t.TempDir()}
	require.NoError(t, os.CopyFS(c.dir, os.DirFS("testdata/checkout")))
	src, err := settings.FromFiles("dev", root, filepath.Join(root, "Pulumi.dev.yaml"))
	require.NoError(t, err)
	p, _, err := resolver.Resolve(src)
	require.NoError(t, err)
	for _, s := range p.Services {
		entry, _ := catalog.Lookup(s.Name)
		i := slices.IndexFunc(s.Files, func(f plan.File) bool { return f.Path == "/app/contract.json" })
		if entry.App == "" || i < 0 {
			continue
		}
		folder := "apps/" + entry.App + "/"
		require.NoError(t, os.MkdirAll(c.path(folder), 0o755))
		c.write(folder+"contract.json", s.Files[i].Content)
		c.write(folder+"version", "1\n")
		dockerfile := []string{"FROM " + references["reference"]}
		for _, v := range entry.BuildContexts {
			dockerfile = append(dockerfile, "COPY --from="+v.Name+" . /opt/"+v.Name)
		}
		dockerfile = append(dockerfile, "COPY libs/stand_in/ /usr/local/bin/", "COPY "+folder+"contract.json "+folder+"version /app/")
		for _, v := range entry.BuildArgs {
			dockerfile = append(dockerfile, "ARG "+v.Name+"=65534")
		}
		if len(entry.BuildArgs) > 0 {
			dockerfile = append(dockerfile, "USER ${APP_UID}:${APP_GID}")
		}
		dockerfile = append(dockerfile, "ENTRYPOINT []", `CMD ["python", "-m", "apps.`+entry.App+`.main"]`)
		c.write(folder+"Dockerfile", strings.Join(dockerfile, "\n")+"\n")
		c.apps = append(c.apps, entry.App)
	}
	require.NotEmpty(t, c.apps)
	return c
}

func (c *checkout) path(name string) string { return filepath.Join(c.dir, name) }

func (c *checkout) read(name string) string {
	c.t.Helper()
	text, err := os.ReadFile(c.path(name))
	require.NoError(c.t, err)
	return string(text)
}

func (c *checkout) write(name, text string) {
	c.t.Helper()
	require.NoError(c.t, os.WriteFile(c.path(name), []byte(text), 0o644))
}

func (c *checkout) move(from, to string) {
	c.t.Helper()
	require.NoError(c.t, os.Rename(c.path(from), c.path(to)))
}
