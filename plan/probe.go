package plan

import (
	"cmp"
	"fmt"
	"time"

	"al.essio.dev/pkg/shellescape"

	"trading-platform/catalog"
	"trading-platform/settings"
)

// The timing of every probe: a try each second until the first success, then one each interval.
const (
	startInterval = time.Second
	interval      = 15 * time.Second
	retries       = 3
	// Where a failing probe is tried each second, a moment's trouble must not count as much.
	startRetries = 5
)

// newProbe gives a probe its timing.
//
// Engine API 1.44 (Engine 25) has an interval of its own for the start. Older
// engines have one interval for both: there the probe runs each second, and one
// that has succeeded before first sleeps a interval. The mark of that is in /dev/shm,
// which is the container's own and is new after a restart.
func newProbe(command []string, p catalog.Probe, engine settings.Version) Probe {
	out := Probe{
		Test:        command,
		Interval:    Duration{interval},
		Timeout:     Duration{cmp.Or(p.Timeout, 5*time.Second)},
		Retries:     retries,
		StartPeriod: Duration{cmp.Or(p.Start, time.Minute)},
	}
	if engine.AtLeast(1, 44) {
		out.StartInterval = Duration{startInterval}
		return out
	}
	out.Retries = startRetries
	line := command[len(command)-1]
	if command[0] == "CMD" {
		line = shellescape.QuoteCommand(command[1:])
	}
	out.Test = []string{"CMD-SHELL", fmt.Sprintf(
		"[ -e /dev/shm/healthy ] && sleep %d; if %s; then : > /dev/shm/healthy; else rm -f /dev/shm/healthy; exit 1; fi",
		int(interval.Seconds()), line)}
	out.Interval = Duration{startInterval}
	out.Timeout.Duration += interval
	return out
}
