//go:build live

package test

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
)

// login logs in to the stack's database over its published port, where a password counts.
func (s *stack) login(password, statement string) (string, error) {
	cmd := exec.CommandContext(s.t.Context(), "psql", "-X", "-w", "-h", "127.0.0.1", "-p", strconv.Itoa(5433+s.offset), "-U", "trader", "-tAc", statement)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// TestPasswordsFollowTheSettings keeps one database through every profile, each with another password.
func TestPasswordsFollowTheSettings(t *testing.T) {
	t.Parallel()
	s := newStack(t, "base", nil)
	s.configure(map[string]any{"disabled": slices.DeleteFunc(catalog.ServiceNames(), func(name string) bool { return name == "postgres" })})
	before := ""
	for i, step := range []struct{ profile, password string }{
		{"dev", "trader"},
		{"mtls", `it's "quoted" \ and 100% $HOME ${HOME} ` + "`id`"},
		{"oauth2", "of-oauth2;--"},
		{"oauth2", "rotated é"},
		{"dev", "of-dev-now"},
	} {
		s.configure(map[string]any{"profiles": []string{step.profile}, "env": map[string]any{"POSTGRES_PASSWORD": step.password}})
		s.up()
		if i == 0 {
			_, err := s.login(step.password, "create table kept (n int)")
			require.NoError(t, err)
		}
		_, err := s.login(step.password, "insert into kept select generate_series(1, 1000)")
		require.NoError(t, err, "%s with %q", step.profile, step.password)
		rows, err := s.login(step.password, "select count(*) from kept")
		require.NoError(t, err)
		assert.Equal(t, strconv.Itoa(1000*(i+1)), rows, step.profile)
		if before != "" {
			out, err := s.login(before, "select 1")
			require.Error(t, err)
			assert.Contains(t, out, "password authentication failed")
		}
		before = step.password
	}
	s.unchanged("after the last")
	assert.NotContains(t, s.logs(s.prefix+"_postgres", "all"), "of-dev-now")

	t.Run("a value that everyone knows does not go over what a secured stack has used", func(t *testing.T) {
		s := s.in(t)
		ids := s.ids()
		s.configure(map[string]any{"env": nil})
		out, err := s.try("up", "-s", s.name, "--yes", "--skip-preview", "--non-interactive")
		require.Error(t, err)
		assert.Contains(t, out, "POSTGRES_PASSWORD: the secured stack base has used the database in volume "+s.prefix+"_pgdata")
		assert.Contains(t, out, "platform init -s base generates one")
		assert.Equal(t, ids, s.ids(), "nothing was changed")
		_, err = s.login(before, "select 1")
		assert.NoError(t, err)
	})
	t.Run("a database that is missing is made", func(t *testing.T) {
		s := s.in(t)
		s.configure(map[string]any{"env": map[string]any{"POSTGRES_PASSWORD": before, "POSTGRES_DB": `another "one"`}})
		s.up()
		names, err := s.login(before, "select string_agg(datname, ',' order by datname) from pg_database where not datistemplate")
		require.NoError(t, err)
		assert.Equal(t, `another "one",postgres,trader`, names)
		rows, err := s.login(before, "select count(*) from kept")
		require.NoError(t, err)
		assert.Equal(t, "5000", rows)
	})
	t.Run("a role that the database does not have is told at once, with the way out", func(t *testing.T) {
		s := s.in(t)
		s.configure(map[string]any{"env": map[string]any{"POSTGRES_PASSWORD": before, "POSTGRES_USER": "somebody"}})
		out, err := s.try("up", "-s", s.name, "--yes", "--skip-preview", "--non-interactive")
		require.Error(t, err)
		assert.Contains(t, out, "POSTGRES_USER is somebody, a role that the database in this volume does not have. Fix: pulumi config set -s base POSTGRES_USER")
		assert.NotContains(t, out, before)
		s.configure(map[string]any{"env": map[string]any{"POSTGRES_PASSWORD": before}})
		s.up()
		rows, err := s.login(before, "select count(*) from kept")
		require.NoError(t, err)
		assert.Equal(t, "5000", rows)
	})
	t.Run("a value that no container can be given is refused", func(t *testing.T) {
		s := s.in(t)
		for value, what := range map[string]string{"two\nlines": "contains a line break", "a\x00b": "contains a NUL"} {
			s.configure(map[string]any{"env": map[string]any{"POSTGRES_PASSWORD": value}})
			out, err := s.try("preview", "-s", s.name, "--non-interactive")
			require.Error(t, err)
			assert.Contains(t, out, "POSTGRES_PASSWORD: "+what)
		}
		s.configure(map[string]any{"env": map[string]any{"POSTGRES_PASSWORD": before}})
	})
}
