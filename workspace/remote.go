package workspace

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"

	engines "trading-platform/engine"
	"trading-platform/fault"
	"trading-platform/plan"
)

// Forward makes the ports that a stack publishes on the loopback addresses of the machine of its engine reachable at the same
// addresses of this machine, until it is interrupted. It runs ssh, with the user's keys and configuration.
func Forward(ctx context.Context, here engines.Ref, p *plan.Plan) error {
	if here.Machine() == "" {
		return fmt.Errorf("stack %s runs on this machine, so that its ports are here already", p.Stack)
	}
	line := forwarding(here, p)
	if !strings.HasPrefix(here.Host, "ssh://") {
		return fault.List{{
			Where: "stack " + p.Stack, What: "its engine is not reached by ssh, but at " + here.Host,
			Fix: "if that machine has an ssh server: " + strings.Join(line, " ") + "; or publish the ports there: pulumi config set -s " + p.Stack + " bindAddress <address>",
		}}
	}
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil && ctx.Err() == nil { // otherwise the user has ended it
		return fmt.Errorf("%s: %w. Fix: correct what ssh reports above, then run this command again", strings.Join(line, " "), err)
	}
	return nil
}

// forwarding returns the ssh command line for the ports that the plan publishes on loopback addresses. It leaves out ports that
// only root can open.
func forwarding(here engines.Ref, p *plan.Plan) []string {
	line := []string{"ssh", "-N", "-o", "ExitOnForwardFailure=yes"}
	for _, s := range p.Services {
		for _, port := range s.Ports {
			address, err := netip.ParseAddr(port.Address)
			if err == nil && address.IsLoopback() && (port.Host >= 1024 || os.Geteuid() <= 0) { // -1 on Windows
				at := net.JoinHostPort(port.Address, strconv.Itoa(port.Host))
				line = append(line, "-L", at+":"+at)
			}
		}
	}
	if u, err := url.Parse(here.Host); err == nil && u.Scheme == "ssh" {
		if u.User.Username() != "" {
			line = append(line, "-l", u.User.Username())
		}
		if u.Port() != "" {
			line = append(line, "-p", u.Port())
		}
	}
	return append(line, "--", here.Machine())
}

// sayAddresses tells how to reach what a stack publishes on the loopback addresses of another machine.
func (r *run) sayAddresses(p *plan.Plan) {
	machine := r.here.Machine()
	if machine == "" {
		return
	}
	how := "at the same addresses of this machine: platform forward -s " + r.stack + ", or: "
	if !strings.HasPrefix(r.here.Host, "ssh://") {
		how = "from here: pulumi config set -s " + r.stack + " bindAddress <its address>, or, if it has an ssh server: "
	}
	r.say("the addresses above are those of " + machine + ". To reach them " + how + strings.Join(forwarding(r.here, p), " "))
}
