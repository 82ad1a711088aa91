package rehearse

import (
	"context"
	_ "embed" // the seed
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"trading-platform/backup"
	"trading-platform/review"
)

//go:embed seed.sql
var seedSQL string

//go:embed count.sql
var countSQL string

//go:embed seed.lua
var seedLua string

//go:embed count.lua
var countLua string

// psql and redisCLI run a statement in the server's container. exec replaces the shell: PostgreSQL takes the end of a process that it
// did not start for the crash of a session.
var (
	psql     = []string{"sh", "-c", `exec psql -XAtq -v ON_ERROR_STOP=1 -F ' ' -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c "$0"`}
	redisCLI = []string{"sh", "-c", `[ -z "$REDIS_PASSWORD" ] || export REDISCLI_AUTH="$REDIS_PASSWORD"; exec redis-cli eval "$0" 0 "$1"`}
)

// ask runs a command in the container of a service of a side's plan.
func (r *rehearsal) ask(ctx context.Context, s *side, service string, command ...string) (answer string, err error) {
	o, ok := s.plan.Lookup(service)
	if !ok {
		return "", errors.New("the stack has no " + service)
	}
	return (&backup.Stack{Engine: r.Engine}).Ask(ctx, o.Containers[0], nil, command...)
}

// seed puts the project's own seed into the databases that the stack has.
func (r *rehearsal) seed(ctx context.Context) error {
	for service, command := range map[string][]string{"postgres": append(psql, seedSQL), "redis": append(redisCLI, seedLua, "")} {
		if _, ok := r.base.plan.Lookup(service); !ok {
			continue
		}
		if said, err := r.ask(ctx, r.base, service, command...); err != nil || said != "" { // redis-cli exits with 0 after an error
			return errors.Join(fmt.Errorf("the seed of %s: %s", service, said), err)
		}
	}
	return nil
}

// counts returns how many rows each table of the stack's database has, and the numbers of Redis' keys and entries of lists. What
// cannot be read is missing.
func (r *rehearsal) counts(ctx context.Context, s *side) map[string]int {
	found := map[string]int{}
	if lines, err := r.ask(ctx, s, "postgres", append(psql, countSQL)...); err == nil {
		for line := range strings.Lines("PostgreSQL 0\n" + lines) {
			var table string
			var rows int
			if _, err := fmt.Sscan(line, &table, &rows); err == nil {
				found["rows of "+table] = rows
				found["rows of PostgreSQL"] += rows
			}
		}
	}
	pattern := "*"
	if r.Seed == "" {
		pattern = "rehearsal:*"
	}
	if lines, err := r.ask(ctx, s, "redis", append(redisCLI, countLua, pattern)...); err == nil {
		var keys, entries int
		if _, err := fmt.Sscan(lines, &keys, &entries); err == nil {
			found["keys of Redis"], found["entries of Redis' lists"] = keys, entries
		}
	}
	return found
}

// compareCounts lists the sums, and the tables that have fewer rows than before.
func compareCounts(before, after map[string]int) (all []review.Count) {
	for _, name := range slices.Sorted(maps.Keys(before)) {
		n, ok := after[name]
		if !ok {
			n = review.Unreadable
		}
		if n < before[name] || !strings.Contains(name, ".") {
			all = append(all, review.Count{Name: name, Before: before[name], After: n})
		}
	}
	return all
}
