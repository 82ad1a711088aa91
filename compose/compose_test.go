package compose

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog/catalogtest"
	"trading-platform/plan"
	"trading-platform/settings"
)

// stacks resolves every stack that has a file, with made-up values for what a user has to set.
func stacks(t *testing.T) map[string]*plan.Plan {
	t.Helper()
	files, err := filepath.Glob("../Pulumi.*.yaml")
	require.NoError(t, err)
	all := map[string]*plan.Plan{}
	for _, file := range files {
		name := strings.Split(filepath.Base(file), ".")[1]
		src, err := settings.FromFiles(name, "..", file)
		require.NoError(t, err)
		maps.Copy(src.Config, catalogtest.Required(map[string]string{"POSTGRES_PASSWORD": "c4n4ry$HOME", "GF_SECURITY_ADMIN_PASSWORD": "c4n4ry"}))
		src.Config["replicas"] = `{"alert_worker":2}`
		set, err := settings.Load(src)
		require.NoError(t, err)
		all[name], err = plan.Resolve(set, map[string]string{"server.key": "c4n4ry"})
		require.NoError(t, err)
	}
	require.NotEmpty(t, all)
	return all
}

// TestEveryStack reads each stack's Compose file again, and compares it with the plan.
func TestEveryStack(t *testing.T) {
	for name, p := range stacks(t) {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			require.NoError(t, Write(p, &out))
			assert.NotContains(t, out.String(), "c4n4ry")
			_, needed, err := render(p)
			require.NoError(t, err)
			for variable := range needed {
				needed[variable] = "value of " + variable
			}
			project, err := load(out.Bytes(), needed)
			require.NoError(t, err)
			containers := 0
			for _, s := range p.Services {
				for i, container := range s.Containers {
					containers++
					got := project.Services[strings.TrimPrefix(container, "trading_platform_")]
					require.Equal(t, container, got.ContainerName)
					assert.Equal(t, s.Image.Key(), got.Image)
					assert.Equal(t, s.Command, []string(got.Command))
					assert.Equal(t, s.Probe.Test, []string(got.HealthCheck.Test))
					for _, v := range s.Env {
						if v.Secret {
							v.Value = "value of " + v.Name
						}
						assert.Equal(t, v.Value, *got.Environment[v.Name], "%s of %s", v.Name, container)
					}
					for _, name := range s.After {
						assert.Equal(t, types.ServiceConditionHealthy, got.DependsOn[name].Condition)
					}
					for _, n := range s.Networks {
						assert.Equal(t, n.Address, got.Networks[n.Network].Ipv4Address)
					}
					assert.Equal(t, s.Name, got.Networks[s.Networks[0].Network].Aliases[0], "replica %d", i)
					contents := map[string]string{}
					for _, c := range got.Configs {
						contents[c.Target] = project.Configs[c.Source].Content
					}
					for _, c := range got.Secrets {
						contents[c.Target] = project.Secrets[c.Source].Environment
					}
					for _, f := range s.Files {
						if f.Secret {
							f.Content = environmentName(s.Name + f.Path)
						}
						assert.Equal(t, f.Content, contents[f.Path], f.Path)
					}
				}
			}
			assert.Len(t, project.Services, containers)
		})
	}
}

func TestASecretThatIsNotSetIsRefused(t *testing.T) {
	p := &plan.Plan{NamePrefix: "x", Services: []plan.Service{{
		Name: "api", Containers: []string{"x_api"}, Image: plan.Image{Reference: "api:1"}, Env: []plan.Env{{Name: "TOKEN", Value: "a", Secret: true}},
	}}}
	text, _, err := render(p)
	require.NoError(t, err)
	_, err = load(text, nil)
	require.ErrorContains(t, err, "required variable TOKEN is missing a value: a secret of api is not set")
	project, err := load(text, map[string]string{"API_TOKEN": "its own"})
	require.NoError(t, err)
	assert.Equal(t, "its own", *project.Services["api"].Environment["TOKEN"])
}

// notExported are the fields of a plan that say nothing about a container, network or volume.
var notExported = map[string]bool{
	"Profiles": true, "Provider": true, "RetainVolumes": true, "RemovedVolumes": true, "Notes": true, "Open": true, "Unset": true,
	"Services.Tier": true, "Services.Profile": true, "Services.Health": true, "Services.Metrics": true, "Services.Local": true,
	"Services.Host.Port": true, "Services.Host.Env.Name": true, "Services.Host.Env.Value": true, "Services.Host.Env.Secret": true, "Services.Ports.URL": true,
	"Orchestrator": true, "Node": true, "Services.Placement": true, // of a Swarm, which Compose is not
	"Services.Image.Build.Push": true, "Services.Image.Build.Contexts.Push": true,
	"Services.Image.Build.Contexts.Dockerfile": true, // it only copies a folder, which Compose names itself
}

// TestEveryFieldIsExported changes each field of a plan in turn: the Compose file must change
// with it. So a new field that the export forgets fails here.
func TestEveryFieldIsExported(t *testing.T) {
	file := func(p plan.Plan) string {
		text, _, err := render(&p)
		require.NoError(t, err)
		return string(text)
	}
	full := func(change func(*plan.Plan)) (p plan.Plan) {
		fill(reflect.ValueOf(&p).Elem(), 0)
		change(&p)
		return p
	}
	bases := []func(*plan.Plan){
		func(*plan.Plan) {},
		func(p *plan.Plan) { p.Services[0].Image.Build = nil }, // so that the reference counts
		func(p *plan.Plan) { p.Services[0].Mounts[0].Volume = "" },
		func(p *plan.Plan) {
			p.Services[0].Image.Build.Contexts[0].Args = map[string]string{plan.FolderArg: "x"}
		},
	}
	exported := map[string]bool{}
	for _, base := range bases {
		p := full(base)
		before := file(p)
		leaves(reflect.ValueOf(&p).Elem(), "", func(path string, field reflect.Value) {
			was := reflect.New(field.Type()).Elem()
			was.Set(field)
			other(field)
			exported[path] = exported[path] || file(p) != before
			field.Set(was)
		})
	}
	for path, yes := range exported {
		top, _, _ := strings.Cut(path, ".")
		assert.Equal(t, !notExported[path] && !notExported[top], yes, "the Compose file shows %s", path)
	}
	assert.Greater(t, len(exported), 50)
}

// fill gives every field a value: one element for a list, "x" for a text, false for a bool.
func fill(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), depth+1)
		}
	case reflect.Slice:
		if depth < 8 { // a build has builds
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			fill(v.Index(0), depth+1)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"x": "x"}))
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Bool:
	default:
		panic(fmt.Sprintf("no value for %s", v.Type()))
	}
}

// leaves calls visit for each field that is no struct, with its path.
func leaves(v reflect.Value, path string, visit func(string, reflect.Value)) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			leaves(v.Field(i), strings.TrimPrefix(path+"."+v.Type().Field(i).Name, "."), visit)
		}
	case reflect.Slice:
		for i := range v.Len() {
			leaves(v.Index(i), path, visit)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			leaves(v.Elem(), path, visit)
		}
	default:
		visit(path, v)
	}
}

// other changes a value.
func other(v reflect.Value) {
	switch v.Kind() {
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{plan.FolderArg: "y", "x": "y"}))
	case reflect.String:
		v.SetString("y")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	default:
		v.SetInt(v.Int() + int64(time.Second))
	}
}
