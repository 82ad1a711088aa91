package review

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/distribution/reference"

	"trading-platform/catalog"
	"trading-platform/fault"
	"trading-platform/plan"
	"trading-platform/settings"
)

// policyPrefix begins the text of a fault that is a broken rule.
const policyPrefix = "policy "

// Check returns the rules of the catalog that a stack breaks, as a fault.List. The rule about volumes is about a change: Compare checks it.
func Check(p *plan.Plan, set *settings.Settings, services []catalog.Service) error {
	var faults fault.List
	for _, s := range services {
		o, runs := p.Lookup(s.Name)
		if !runs {
			continue
		}
		test := func(rule catalog.Rule, kept bool, fix, what string, args ...any) {
			if !kept && s.Exceptions[rule] == "" {
				faults.Add(policyPrefix+string(rule), fix+" in catalog/"+catalog.Tiers[s.Tier]+`, or write there why not: Exceptions: map[Rule]string{"`+string(rule)+`": "<reason>"}`,
					"service "+s.Name+" "+what, args...)
			}
		}
		test(catalog.RuleLatest, o.Image.Build != nil || pinned(o.Image.Reference), "give the image a version as its tag",
			"runs image %s, which can be another one tomorrow", o.Image.Reference)
		for _, port := range o.Ports {
			// bindAddress names the ports with a login, and expose the others.
			login := slices.ContainsFunc(s.Ports, func(c catalog.Port) bool { return c.Login && c.Container == port.Container })
			address, err := netip.ParseAddr(port.Address)
			named := slices.Contains(set.Expose, s.Name) || login && address == set.BindAddress
			test(catalog.RuleLoopback, err == nil && (address.IsLoopback() || named), "name the service in `expose`, or publish the port on 127.0.0.1",
				"publishes port %d on %s, and no setting names it", port.Host, port.Address)
		}
		test(catalog.RuleProbe, len(o.Probe.Test) > 0 && o.Probe.Test[0] != "NONE", "write a probe", "has no probe")
		test(catalog.RuleMemory, o.Memory > 0, "set Memory", "has no memory limit")
		test(catalog.RuleOwner, s.Owner != "", "set Owner", "has no owner")
	}
	return faults.Err()
}

// pinned reports whether a reference has a digest, or a tag that is not latest.
func pinned(image string) bool {
	name, err := reference.ParseNormalizedNamed(image)
	if err != nil || reference.IsNameOnly(name) {
		return false
	}
	tagged, ok := name.(reference.Tagged)
	_, digested := name.(reference.Digested)
	return digested || ok && tagged.Tag() != "latest"
}

// removedVolumes returns an item for each volume that the change removes without an exception.
func removedVolumes(base, head *Snapshot) (out []Item) {
	for _, v := range base.Volumes {
		if head.Volume(v.Key) == nil && head.RemovedVolumes[v.Key] == "" {
			out = append(out, Item{What: "policy", Name: v.Key, Text: fmt.Sprintf("%s: volume %s is removed. Fix: keep it in catalog.Volumes, or give the reason in catalog.RemovedVolumes",
				catalog.RuleVolume, v.Key)})
		}
	}
	return out
}

// faultItem returns the item of a fault line: of a broken rule, or of anything else that keeps a stack from coming up.
func faultItem(text string) Item {
	if rule, ok := strings.CutPrefix(text, policyPrefix); ok {
		return Item{What: "policy", Text: rule}
	}
	return Item{What: "fault", Text: text}
}

// BrokenRules returns the rules that the change newly breaks as an error.
func (r Report) BrokenRules() error {
	var broken []error
	for _, s := range r.Stacks {
		for _, i := range s.items("policy") {
			broken = append(broken, errors.New("stack "+s.Name+": "+policyPrefix+i.Text))
		}
	}
	return errors.Join(broken...)
}
