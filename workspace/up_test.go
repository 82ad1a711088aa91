package workspace

import (
	"context"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/engine/enginetest"
	"trading-platform/observe"
	"trading-platform/plan"
	"trading-platform/settings"
)

// This machine cannot see the lock of a run on another machine if the state is in a bucket,
// and objects that such a run has just created are not in the state yet.
func TestNewObjectsOfAnotherRunAreKept(t *testing.T) {
	for name, test := range map[string]struct {
		backend string
		made    time.Time
		removed bool
	}{
		"state in a bucket, made just now":  {"s3://states", time.Now(), false},
		"state in a bucket, made long ago":  {"s3://states", time.Now().Add(-time.Hour), true},
		"local state, whose lock was clear": {"file:///states", time.Now(), true},
	} {
		t.Run(name, func(t *testing.T) {
			w := clone(t)
			w.Backend = test.backend
			c, err := client.New(client.WithHost((&enginetest.Engine{}).Start(t)))
			require.NoError(t, err)
			said := ""
			r := &run{Workspace: w, stack: "dev", engine: c, say: func(line string) { said += line + "\n" }}
			found := &observe.Findings{Containers: []container.Summary{{ID: "c1", Names: []string{"/x_redis"}, Created: test.made.Unix()}}}
			_, err = r.converge(context.Background(), &plan.Plan{Provider: settings.Official}, found, "up")
			if test.removed {
				require.ErrorContains(t, err, "container x_redis: ", "the stand-in for an engine stops nothing")
				assert.Contains(t, said, "x_redis was left behind by an interrupted run: removing it")
				return
			}
			require.NoError(t, err)
			assert.Contains(t, said, "x_redis is not in the state and is new: it is kept")
		})
	}
}

func TestOnlyALargeStackSavesItsStateAtTheEndAlone(t *testing.T) {
	small := &plan.Plan{Provider: settings.Offline, Services: []plan.Service{{Containers: make([]string, largeStack)}}}
	large := &plan.Plan{Provider: settings.Offline, Services: append(small.Services, plan.Service{Containers: make([]string, 1)})}
	for name, test := range map[string]struct {
		backend string
		plan    *plan.Plan
		want    []string
	}{
		"small":              {"file:///states", small, nil},
		"large":              {"file:///states", large, []string{"PULUMI_SKIP_CHECKPOINTS=true"}},
		"large, in a bucket": {"s3://states", large, nil},
		"unknown":            {"file:///states", nil, nil},
	} {
		w := clone(t)
		w.Backend = test.backend
		assert.Equal(t, test.want, (&run{Workspace: w}).checkpoints(test.plan), name)
	}
}
