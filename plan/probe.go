package plan

import (
	"cmp"
	"fmt"
	"time"

	"al.essio.dev/pkg/shellescape"

	"trading-platform/catalog"
	"trading-platform/settings"
)

// The timing of every probe: it runs each second until its first success, and every 15 seconds after it.
const (
	startInterval = time.Second
	interval      = 15 * time.Second
	retries       = 3
	// A probe that runs each second needs more retries, so that a short failure does not count.
	startRetries = 5
)

// newProbe returns a probe with its timing.
//
// Engine API 1.44 (Docker 25) has a start interval. Older engines have only one
// interval. For them the probe runs each second, and after its first success it sleeps
// for the longer interval before each check. A file in /dev/shm, which belongs to the
// container and is empty after a restart, records the success.
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
