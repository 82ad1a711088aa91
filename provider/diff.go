package provider

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	p "github.com/pulumi/pulumi-go-provider"
	"github.com/pulumi/pulumi/pkg/v3/codegen/schema"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/pulumi/pulumi/sdk/v3/go/property"
)

// Facts about properties, by their names, that the schema cannot express.
var (
	// ordered are the lists whose order matters.
	ordered = []string{"command", "args", "tests"}
	// durations are texts that can be spelled differently and mean the same.
	durations = []string{"interval", "timeout", "startPeriod", "startInterval", "delay", "monitor", "stopGracePeriod"}
	// optional are properties whose zero value differs in meaning from their absence.
	optional = []string{"removeVolumes", "init", "destroyGraceSeconds"}
	// limits can be set on a running container, but not removed.
	limits = []string{"memory", "memorySwap", "cpuShares"}
	// coexisting are the types of which an old resource and its replacement can exist at the same
	// time, so that a failed pull or build stops nothing, and a service has its files all the time. Resources of other types have names,
	// ports or addresses that only one can have.
	coexisting = []tokens.Type{imageType, "docker:index/remoteImage:RemoteImage", "docker:index/serviceConfig:ServiceConfig", "docker:index/secret:Secret"}
)

// diff says what is to be done about a change of inputs, a failed start, or drift that a read found.
func (d *provider) diff(_ context.Context, req p.DiffRequest) (p.DiffResponse, error) {
	if err := ours(req.State); err != nil {
		return p.DiffResponse{}, err
	}
	token := req.Urn.Type()
	diff := d.changes("", d.resources[token].InputProperties, req.OldInputs, req.Inputs, false)
	if !req.State.Get(failedKey).IsNull() {
		diff[failedKey] = p.PropertyDiff{Kind: p.UpdateReplace}
	}
	if drift := req.State.Get(driftKey); drift.IsMap() {
		for key := range drift.AsMap().All {
			diff[driftKey+"."+key] = p.PropertyDiff{Kind: p.Update}
		}
	}
	return p.DiffResponse{
		HasChanges: len(diff) > 0, DetailedDiff: diff,
		DeleteBeforeReplace: len(diff) > 0 && !slices.Contains(coexisting, token),
	}, nil
}

// changes compares the old inputs with the new ones, property by property. An
// absent property equals its zero value, and two spellings of a duration or two orders of a
// set are equal. A property that is not known yet counts as changed.
func (d *provider) changes(
	path string, properties map[string]schema.PropertySpec, olds, news property.Map, replace bool,
) map[string]p.PropertyDiff {
	diff := map[string]p.PropertyDiff{}
	for name, spec := range properties {
		before, after := olds.Get(name), news.Get(name)
		was, is := compared(name, before), compared(name, after)
		replaces := replace || spec.ReplaceOnChanges || is == "" && slices.Contains(limits, name)
		if spec.Ref != "" && before.IsMap() && after.IsMap() {
			maps.Copy(diff, d.changes(path+name+".", d.object(spec.TypeSpec).Properties, before.AsMap(), after.AsMap(), replaces))
			continue
		}
		if !after.HasComputed() && was == is {
			continue
		}
		kind := p.Update
		switch {
		case before.IsNull():
			kind = p.Add
		case after.IsNull():
			kind = p.Delete
		}
		if replaces {
			kind += "&replace" // such as p.UpdateReplace
		}
		diff[path+name] = p.PropertyDiff{Kind: kind, InputDiff: true}
	}
	return diff
}

// compared is a value in the form in which it is compared: empty for an absent one.
func compared(name string, v property.Value) string {
	var parts []string
	switch {
	case v.IsMap():
		for key, value := range v.AsMap().AllStable {
			if text := compared(key, value); text != "" || value.IsString() { // the user's own keys may have empty values
				parts = append(parts, fmt.Sprintf("%q: %s", key, text))
			}
		}
	case v.IsArray():
		for _, value := range v.AsArray().All {
			parts = append(parts, compared("", value))
		}
		if !slices.Contains(ordered, name) {
			slices.Sort(parts)
		}
	case v.IsString() && slices.Contains(durations, name):
		if length, _ := time.ParseDuration(v.AsString()); length != 0 { // check has refused a malformed one
			return length.String()
		}
	case v.IsString() && v.AsString() != "":
		return strconv.Quote(v.AsString())
	case v.IsNumber() && (v.AsNumber() != 0 || slices.Contains(optional, name)):
		return fmt.Sprint(v.AsNumber())
	case v.IsBool() && (v.AsBool() || slices.Contains(optional, name)):
		return strconv.FormatBool(v.AsBool())
	}
	if len(parts) == 0 {
		return ""
	}
	return "[" + strings.Join(parts, ", ") + "]"
}
