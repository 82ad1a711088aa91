package plan

import (
	"cmp"
	"fmt"
	"time"

	"al.essio.dev/pkg/shellescape"

	"trading-platform/catalog"
	"trading-platform/settings"
)

// The timing of every probe: a service is checked after pauses that grow from a tenth of a second to a second until it
// is healthy, and every 15 seconds after that.
const (
	interval = 15 * time.Second
	retries  = 3
)

// severalChecks is a probe that makes several checks, because the engine spends far more on starting a
// process in a container than the process does itself. /dev/shm belongs to the container, and is empty after a
// restart. A file there records a success: the next probe then checks for a minute, and ends with the first failure.
// While the container starts, a probe ends with the first success, or fails after 5 seconds: its pauses grow,
// because the checks of many containers would take the processors from what they check. For the same reason
// a container that was healthy and no longer is, is checked once in a probe, after which the pauses grow to those of a healthy one.
const severalChecks = `check() { timeout %d %s; }
if rm /dev/shm/healthy 2>/dev/null; then
  for n in 1 2 3 4; do sleep %d; check || exit 1; done
elif [ -e /dev/shm/failures ]; then
  check || { n=$(wc -c </dev/shm/failures); [ $n -ge 15 ] || printf . >>/dev/shm/failures; sleep $n; exit 1; }
else
  read -r now _ </proc/uptime; end=$((${now%%.*} + 5)); set -- .1 .1 .2 .2 .4 .4
  until check >/dev/shm/said 2>&1; do
    sleep ${1:-1}; [ $# -eq 0 ] || shift; read -r now _ </proc/uptime
    [ ${now%%.*} -lt $end ] || { cat /dev/shm/said; exit 1; }
  done
fi
: >/dev/shm/failures
: >/dev/shm/healthy`

// newProbe returns a probe with its timing.
//
// Engine API 1.44 (Docker 25) has a start interval. Older engines have only one
// interval: on them the probe itself waits between its checks.
func newProbe(command []string, p catalog.Probe, engine settings.Version) Probe {
	timeout := cmp.Or(p.Timeout, 5*time.Second)
	out := Probe{
		Test:        command,
		Interval:    Duration{interval},
		Timeout:     Duration{timeout},
		Retries:     retries,
		StartPeriod: Duration{cmp.Or(p.Start, time.Minute)},
	}
	if engine.AtLeast(1, 44) {
		out.StartInterval = Duration{time.Second}
		return out
	}
	if command[0] == "CMD" {
		command = command[1:]
	} else {
		command = []string{"sh", "-c", command[len(command)-1]}
	}
	out.Test = []string{"CMD-SHELL", fmt.Sprintf(severalChecks,
		int(timeout.Seconds()), shellescape.QuoteCommand(command), int(interval.Seconds()))}
	out.Interval = Duration{200 * time.Millisecond}
	out.Timeout = Duration{5 * (interval + timeout)} // longer than any probe takes
	return out
}
