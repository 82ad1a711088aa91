package provider

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"time"

	p "github.com/pulumi/pulumi-go-provider"
	"github.com/pulumi/pulumi/pkg/v3/codegen/schema"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/pulumi/pulumi/sdk/v3/go/property"
)

// Facts about properties, by their names, that the schema cannot express.
var (
	// ordered are the lists whose order matters.
	ordered = []string{"command", "entrypoints", "tests"}
	// durations are texts that can be spelled differently and mean the same.
	durations = []string{"interval", "timeout", "startPeriod", "startInterval"}
	// optional are properties whose zero value differs in meaning from their absence.
	optional = []string{"start", "mustRun", "removeVolumes", "init", "stopTimeout", "destroyGraceSeconds"}
	// limits can be set on a running container, but not removed.
	limits = []string{"memory", "memorySwap", "cpuShares"}
	// coexisting are the types of which an old resource and its replacement can exist at the same
	// time, so that a failed pull or build stops nothing. Resources of other types have names,
	// ports or addresses that only one can have.
	coexisting = []tokens.Type{imageType, "docker:index/remoteImage:RemoteImage"}
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
			kind := p.UpdateReplace
			if slices.Contains(liveDrift, key) {
				kind = p.Update
			}
			diff[driftKey+"."+key] = p.PropertyDiff{Kind: kind}
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
		was, is := d.compared(name, spec.TypeSpec, before), d.compared(name, spec.TypeSpec, after)
		unknown := after.HasComputed()
		if !unknown && reflect.DeepEqual(was, is) {
			continue
		}
		replaces := replace || spec.ReplaceOnChanges || is == nil && slices.Contains(limits, name)
		if !unknown && spec.Ref != "" && before.IsMap() && after.IsMap() {
			maps.Copy(diff, d.changes(path+name+".", d.object(spec.TypeSpec).Properties, before.AsMap(), after.AsMap(), replaces))
			continue
		}
		kind, replacing := p.Update, p.UpdateReplace
		switch {
		case before.IsNull():
			kind, replacing = p.Add, p.AddReplace
		case after.IsNull():
			kind, replacing = p.Delete, p.DeleteReplace
		}
		if replaces {
			kind = replacing
		}
		diff[path+name] = p.PropertyDiff{Kind: kind, InputDiff: true}
	}
	return diff
}

// compared is a value in the form in which it is compared: nil for an absent one.
func (d *provider) compared(name string, t schema.TypeSpec, v property.Value) any {
	switch {
	case v.IsMap() && t.Ref != "":
		object := map[string]any{}
		for key, spec := range d.object(t).Properties {
			if value := d.compared(key, spec.TypeSpec, v.AsMap().Get(key)); value != nil {
				object[key] = value
			}
		}
		return object
	case v.IsMap() && v.AsMap().Len() > 0:
		entries := map[string]any{}
		for key, value := range v.AsMap().All {
			entries[key] = d.compared("", schema.TypeSpec{}, value)
		}
		return entries
	case v.IsArray() && v.AsArray().Len() > 0:
		var items schema.TypeSpec
		if t.Items != nil {
			items = *t.Items
		}
		var elements []any
		for _, value := range v.AsArray().All {
			elements = append(elements, d.compared("", items, value))
		}
		if !slices.Contains(ordered, name) {
			slices.SortFunc(elements, func(a, b any) int { return cmp.Compare(spelled(a), spelled(b)) })
		}
		return elements
	case v.IsString() && slices.Contains(durations, name):
		if length, err := time.ParseDuration(v.AsString()); err == nil && length != 0 {
			return length
		}
	case v.IsString() && v.AsString() != "":
		return v.AsString()
	case v.IsNumber() && (v.AsNumber() != 0 || slices.Contains(optional, name)):
		return v.AsNumber()
	case v.IsBool() && (v.AsBool() || slices.Contains(optional, name)):
		return v.AsBool()
	}
	return nil
}

func spelled(v any) string {
	text, _ := json.Marshal(v) // encoding texts, numbers, lists and maps cannot fail
	return string(text)
}
