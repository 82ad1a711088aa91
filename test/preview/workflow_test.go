//go:build live

package preview

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"trading-platform/workspace"
)

const workflowFile = ".github/workflows/preview.yml"

type workflow struct {
	On          map[string]any
	Permissions map[string]string
	Concurrency struct {
		Group  string
		Cancel bool `yaml:"cancel-in-progress"`
	}
	Defaults struct{ Run struct{ Shell string } }
	Jobs     map[string]job
}

type job struct {
	Needs       any
	If          string
	Permissions map[string]string
	Steps       []step
}

type step struct {
	Name, Uses, Run string
	With, Env       map[string]string
}

func readWorkflow(t *testing.T) (workflow, string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, workflowFile))
	require.NoError(t, err)
	var w workflow
	require.NoError(t, yaml.Unmarshal(text, &w))
	return w, string(text)
}

func TestTheWorkflowIsWellFormed(t *testing.T) {
	cmd := exec.Command(filepath.Join(root, "tools", "bin", "actionlint"), workflowFile)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	assert.NoError(t, err, string(out))
}

func TestTheWorkflowHasNothingToGiveAway(t *testing.T) {
	w, text := readWorkflow(t)
	assert.Equal(t, map[string]any{"pull_request": nil}, w.On, "pull_request alone runs a fork's code without a secret")
	assert.NotContains(t, text, "secrets.")
	assert.NotContains(t, strings.ReplaceAll(text, "# ", ""), "preview --refresh")
	assert.Equal(t, map[string]string{"contents": "read"}, w.Permissions)
	assert.Contains(t, w.Concurrency.Group, "github.event.pull_request.number")
	assert.True(t, w.Concurrency.Cancel)
	for name, j := range w.Jobs {
		writes := map[string]string(nil)
		if name == "comment" {
			writes = map[string]string{"pull-requests": "write"}
			assert.Equal(t, "(!cancelled()) && github.event.pull_request.head.repo.full_name == github.repository", j.If)
			for _, s := range j.Steps {
				assert.NotContains(t, s.Uses, "checkout", "no code of the pull request where the comment can be written")
			}
		}
		assert.Equal(t, writes, j.Permissions, name)
		if name == "rehearse" {
			assert.Equal(t, "github.event.pull_request.head.repo.full_name == github.repository", j.If, "a fork's code does not run on an engine")
		}
		for _, s := range j.Steps {
			if strings.HasPrefix(s.Uses, "actions/checkout@") {
				assert.Equal(t, "false", s.With["persist-credentials"], "%s: the token stays out of the clone", name)
			}
			// What a stranger can write, such as a title, must not become a part of a script.
			assert.NotContains(t, s.Run, "${{", name)
		}
	}
	pinned := regexp.MustCompile(`^\S+@[0-9a-f]{40} # v[0-9]+\.[0-9]+\.[0-9]+$`)
	require.Contains(t, text, "uses: ")
	require.NotEmpty(t, w.Jobs)
	for _, line := range strings.Split(text, "\n") {
		if _, uses, ok := strings.Cut(line, "uses: "); ok {
			assert.Regexp(t, pinned, uses, "an action is pinned by its commit, its version beside it")
		}
	}
}

func TestTheWorkflowsPulumiIsTheOneThatIsBuiltHere(t *testing.T) {
	w, _ := readWorkflow(t)
	module, err := os.ReadFile(filepath.Join(root, "tools", "pulumi", "go.mod"))
	require.NoError(t, err)
	steps := w.Jobs["preview"].Steps
	i := slices.IndexFunc(steps, func(s step) bool { return strings.HasPrefix(s.Uses, "pulumi/actions@") })
	require.GreaterOrEqual(t, i, 0, "a step installs Pulumi")
	version := steps[i].With["pulumi-version"]
	require.NotEmpty(t, version)
	assert.Contains(t, string(module), "github.com/pulumi/pulumi/pkg/v3 v"+version+" ")
}

func TestTheWorkflowsPluginIsTheSDKs(t *testing.T) {
	cmd := exec.Command("go", "list", "-m", "-f", "{{ .Version }}", "github.com/pulumi/pulumi-docker/sdk/v4")
	cmd.Dir = root
	out, err := cmd.Output()
	require.NoError(t, err)
	assert.Equal(t, "v"+workspace.OfficialVersion, strings.TrimSpace(string(out)))
}

// runner plays GitHub's runner: it runs a job's shell steps as they stand in the
// file, and stands in for what only GitHub has.
type runner struct {
	t         *testing.T
	workflow  workflow
	events    map[string]string // the expressions of the file and their values
	clone     string            // with the pull request's merge checked out
	artifacts string
	comments  string // the file of the pull request's comments
	bin       string // stand-ins, first on PATH
	env       []string
	log       bytes.Buffer // all that the steps printed, in all jobs
	summary   string
}

// pullRequest merges a branch into main, the way GitHub does for a run.
func pullRequest(t *testing.T, edit func(c *clone), from string) *runner {
	t.Helper()
	c := newClone(t)
	c.git("checkout", "-q", "-b", "branch")
	edit(c)
	c.commit("What the branch does")
	c.git("checkout", "-q", "main")
	c.add("README.md", "\nMain has gone on meanwhile.\n")
	c.git("add", "README.md")
	c.commit("What main did meanwhile")
	c.git("merge", "-q", "--no-ff", "-m", "Merge", "branch")
	w, _ := readWorkflow(t)
	temp := t.TempDir()
	r := &runner{
		t: t, workflow: w, artifacts: filepath.Join(temp, "artifacts"), comments: filepath.Join(temp, "comments.json"),
		bin: filepath.Join(temp, "bin"), summary: filepath.Join(temp, "summary.md"),
		events: map[string]string{
			"github.token": "stand-in-token", "github.repository": "owner/project",
			"github.event.pull_request.number":              "7",
			"github.event.pull_request.head.repo.full_name": from,
		},
	}
	for _, dir := range []string{r.artifacts, r.bin} {
		require.NoError(t, os.MkdirAll(dir, 0o755))
	}
	// What others wrote stays, whatever it looks like.
	require.NoError(t, os.WriteFile(r.comments, []byte(`[
		{"id": 1, "body": "<!-- trading-platform plan -->\nmine", "user": {"login": "someone"}},
		{"id": 2, "body": "another robot's", "user": {"login": "github-actions[bot]"}}]`), 0o600))
	me, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Symlink(me, filepath.Join(r.bin, "gh")))
	r.clone = filepath.Join(temp, "checkout")
	out, err := gitCommand(temp, "clone", "-q", "--depth", "2", "file://"+c.dir, r.clone).CombinedOutput()
	require.NoError(t, err, string(out))
	return r
}

// standIn puts a program in front of PATH.
func (r *runner) standIn(name, script string) {
	r.t.Helper()
	require.NoError(r.t, os.WriteFile(filepath.Join(r.bin, name), []byte("#!/bin/sh\n"+script), 0o755))
}

var expression = regexp.MustCompile(`\$\{\{ *(.*?) *\}\}`)

// expand fills GitHub's expressions in. One that is not known fails the test.
func (r *runner) expand(text, temp string) string {
	return expression.ReplaceAllStringFunc(text, func(found string) string {
		name := expression.FindStringSubmatch(found)[1]
		if name == "runner.temp" {
			return temp
		}
		value, ok := r.events[name]
		require.True(r.t, ok, "no stand-in for %s", found)
		return value
	})
}

// runs decides a job's condition, which compares two expressions.
func (r *runner) runs(name string) bool {
	condition := r.workflow.Jobs[name].If
	if condition == "" {
		return true
	}
	left, right, ok := strings.Cut(strings.TrimPrefix(condition, "(!cancelled()) && "), " == ")
	require.True(r.t, ok, "a condition that this test cannot decide: %s", condition)
	return r.events[left] == r.events[right]
}

// job runs a job's steps. It tells whether all of them succeeded.
func (r *runner) job(name string) bool {
	r.t.Helper()
	temp := r.t.TempDir()
	for _, s := range r.workflow.Jobs[name].Steps {
		if s.Uses != "" {
			r.use(s, temp)
			continue
		}
		// As GitHub runs `shell: bash`.
		script := filepath.Join(temp, "step.sh")
		require.Equal(r.t, "bash", r.workflow.Defaults.Run.Shell)
		require.NoError(r.t, os.WriteFile(script, []byte(s.Run), 0o600))
		cmd := exec.CommandContext(r.t.Context(), "bash", "--noprofile", "--norc", "-eo", "pipefail", script)
		cmd.Dir = r.clone
		for _, e := range os.Environ() {
			if !strings.HasPrefix(e, "PULUMI_") && !strings.HasPrefix(e, "PATH=") {
				cmd.Env = append(cmd.Env, e)
			}
		}
		cmd.Env = append(cmd.Env, "CI=true", "GITHUB_ACTIONS=true", "RUNNER_TEMP="+temp, "GITHUB_STEP_SUMMARY="+r.summary,
			"STAND_IN_COMMENTS="+r.comments, "PATH="+r.bin+string(os.PathListSeparator)+os.Getenv("PATH"))
		cmd.Env = append(cmd.Env, r.env...)
		for key, value := range s.Env {
			cmd.Env = append(cmd.Env, key+"="+r.expand(value, temp))
		}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		r.log.Write(out.Bytes())
		if err != nil {
			r.t.Logf("%s: %s: %v\n%s", name, s.Name, err, out.String())
			return false
		}
	}
	return true
}

// use stands in for an action.
func (r *runner) use(s step, temp string) {
	r.t.Helper()
	action, _, _ := strings.Cut(s.Uses, "@")
	switch action {
	case "actions/checkout", "actions/setup-go", "actions/cache": // the clone and Go are here, and so are their caches
	case "actions/upload-artifact": // a folder
		require.NoError(r.t, os.CopyFS(filepath.Join(r.artifacts, s.With["name"]), os.DirFS(r.expand(s.With["path"], temp))))
	case "actions/download-artifact": // all of them, each into a folder of its name
		assert.Empty(r.t, s.With["name"])
		require.NoError(r.t, os.CopyFS(r.expand(s.With["path"], temp), os.DirFS(r.artifacts)))
	case "pulumi/actions":
		assert.NotContains(r.t, s.With, "command", "the action only installs")
		r.installPulumi()
	default:
		require.Fail(r.t, "no stand-in for "+action)
	}
}

// installPulumi puts the CLI that is built here on PATH, as the action does with
// the one that it downloads. Where that would download the official docker plugin,
// ours is installed under its version.
func (r *runner) installPulumi() {
	r.t.Helper()
	built := filepath.Join(root, "tools", "bin")
	plugin := filepath.Join(r.t.TempDir(), "pulumi-resource-docker")
	here, err := workspace.Open(root)
	require.NoError(r.t, err)
	require.NoError(r.t, here.BuildProvider(plugin, workspace.OfficialVersion))
	require.NoError(r.t, os.Symlink(filepath.Join(built, "pulumi-language-go"), filepath.Join(r.bin, "pulumi-language-go")))
	r.env = append(r.env, "PULUMI_HOME="+filepath.Join(r.t.TempDir(), "pulumi"))
	r.standIn("pulumi", `pulumi=`+filepath.Join(built, "pulumi")+`
case "$*" in
"plugin install resource docker v`+workspace.OfficialVersion+`" | "plugin install resource docker `+workspace.OfficialVersion+`")
	exec "$pulumi" plugin install resource docker `+workspace.OfficialVersion+` --file `+plugin+` ;;
esac
exec "$pulumi" "$@"
`)
}

func (r *runner) posted() []comment {
	r.t.Helper()
	text, err := os.ReadFile(r.comments)
	require.NoError(r.t, err)
	var all []comment
	require.NoError(r.t, json.Unmarshal(text, &all))
	return all
}

func TestThePlansDifferenceIsOneCommentThatIsUpdated(t *testing.T) {
	t.Parallel()
	r := pullRequest(t, branches["a PostgreSQL major version"].edit, "owner/project")
	require.True(t, r.job("plan"))
	assert.Contains(t, r.log.String(), "::warning title=This touches data::")
	// The rehearsal itself has tests of its own.
	r.standIn("make", `mkdir -p bin && ln -sf "$(dirname "$0")/platform" bin/platform`)
	r.standIn("platform", `echo "$*" >&2
case $1 in
plan) echo '{"services": [{"image": {"reference": "redis:7-alpine"}}, {"image": {"build": {}}}]}' ;;
*) mkdir -p "$RUNNER_TEMP/rehearsal" && echo '### Rehearsal of stack dev' | tee "$RUNNER_TEMP/rehearsal/report.md"; exit 2 ;;
esac`)
	r.standIn("docker", `echo "docker $*"; cat`)
	r.standIn("pulumi", "echo pulumi")
	r.env = append(r.env, "HOME="+t.TempDir())
	require.True(t, r.runs("rehearse"))
	require.True(t, r.job("rehearse"))
	assert.Contains(t, r.log.String(), "rehearse --base HEAD^1 -s dev -o markdown")
	assert.Contains(t, r.log.String(), "docker pull -q redis:7-alpine")
	assert.Contains(t, r.log.String(), "::warning title=Rehearsal::")
	require.True(t, r.runs("comment"))
	require.True(t, r.job("comment"))
	require.Len(t, r.posted(), 3)
	body := r.posted()[2].Body
	assert.True(t, strings.HasPrefix(body, "<!-- trading-platform plan -->\n### What changes in the stacks\n"), body)
	assert.Contains(t, body, "PostgreSQL 16 → 17")
	assert.Contains(t, body, "_(in every stack)_")
	assert.Contains(t, body, "| dev | data at risk |")
	assert.True(t, strings.HasSuffix(body, "\n### Rehearsal of stack dev\n"), body)
	assert.Less(t, len(body), 65000)
	assert.NotContains(t, body, "README", "what main did is not the branch's change")
	summary, err := os.ReadFile(r.summary)
	require.NoError(t, err)
	assert.Contains(t, body, strings.TrimSuffix(string(summary), "### Rehearsal of stack dev\n"))

	require.NoError(t, os.WriteFile(filepath.Join(r.artifacts, "plan", "report.md"), []byte("the next push\n"), 0o600))
	require.NoError(t, os.RemoveAll(filepath.Join(r.artifacts, "rehearsal")))
	require.True(t, r.job("comment"))
	require.Len(t, r.posted(), 3)
	assert.Equal(t, "<!-- trading-platform plan -->\nthe next push\nThere is no rehearsal: the run says why.\n", r.posted()[2].Body)
	assert.Equal(t, "another robot's", r.posted()[1].Body)
}

func TestAForksPullRequestIsPlannedAndPreviewedButNotCommented(t *testing.T) {
	r := pullRequest(t, plant, "stranger/project")
	require.True(t, r.job("plan"))
	require.True(t, r.job("preview"), "with the official plugin")
	assert.False(t, r.runs("comment"))
	assert.False(t, r.runs("rehearse"))
	log := r.log.String()
	assert.Contains(t, log, "provider: official")
	for _, stack := range stackFiles(t) {
		assert.Contains(t, log, stack+": would create ")
	}
	plan, err := os.ReadFile(filepath.Join(r.artifacts, "plan", "report.md"))
	require.NoError(t, err)
	summary, err := os.ReadFile(r.summary)
	require.NoError(t, err)
	assert.NotContains(t, log+string(plan)+string(summary), canary)
	status, err := gitCommand(r.clone, "diff", "HEAD").Output()
	require.NoError(t, err)
	assert.Empty(t, string(status))
}

func TestAPullRequestThatDoesNotResolveFails(t *testing.T) {
	t.Parallel()
	r := pullRequest(t, func(c *clone) { c.add("catalog/base.go", "\nvar broken = \n") }, "owner/project")
	assert.False(t, r.job("plan"))
}

// The checks run in the gate anyway. Here their commands are only looked at: that
// each target and package that they name is there.
func TestTheChecksNameWhatIsThere(t *testing.T) {
	t.Parallel()
	r := pullRequest(t, func(*clone) {}, "owner/project")
	require.NoError(t, os.Symlink(filepath.Join(root, "tools", "bin"), filepath.Join(r.clone, "tools", "bin")))
	realMake, err := exec.LookPath("make")
	require.NoError(t, err)
	realGo, err := exec.LookPath("go")
	require.NoError(t, err)
	r.standIn("make", `exec `+realMake+` -n "$@"`)
	r.standIn("sudo", `echo "sudo $*"`)
	r.standIn("go", `if [ "$1" = test ]; then shift 2; set -- list "$@"; fi
exec `+realGo+` "$@"`)
	require.True(t, r.job("check"))
	log := r.log.String()
	assert.Contains(t, log, "golangci-lint run ./...")
	assert.Contains(t, log, "trading-platform/plan\n")
	assert.NotContains(t, log, "trading-platform/test/preview")
	assert.Contains(t, log, "install -q -y --no-install-recommends prometheus nginx-light")
}
