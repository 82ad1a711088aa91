package workspace

import (
	"fmt"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"
)

// MergeTracked merges edits of the tracked stack file into the stack's own file.
//
// It is a three-way merge of the tracked file at the last merge, the tracked file now, and
// the own file. A value that the own file has from the tracked one is updated; a value
// that was set in the own file is kept. Lists are merged item by item, so that services
// which the tracked file disables are added to those which this machine disables. A stack
// without a tracked file has only its own file.
func (w *Workspace) MergeTracked(stack string) error {
	own, err := readFile(w.StackFile(stack))
	if err != nil || own == nil {
		return err
	}
	last, err := readFile(w.lastTracked(stack))
	if err != nil {
		return err
	}
	now, err := readFile(w.trackedFile(stack))
	if err != nil {
		return err
	}
	if string(last) == string(now) {
		return nil
	}
	merged, err := merge(last, now, own)
	if err != nil {
		return fmt.Errorf("merging %s into %s: %w", w.trackedFile(stack), w.StackFile(stack), err)
	}
	if err := writeFile(w.StackFile(stack), merged); err != nil {
		return err
	}
	return writeFile(w.lastTracked(stack), now)
}

// lastTracked is the path of the copy of the tracked file at the last merge.
func (w *Workspace) lastTracked(stack string) string { return w.StackFile(stack) + ".tracked" }

// merge returns own with the changes from last to now.
func merge(last, now, own []byte) ([]byte, error) {
	var l, n, o map[string]any
	for _, f := range []struct {
		text []byte
		into *map[string]any
	}{{last, &l}, {now, &n}, {own, &o}} {
		if err := yaml.Unmarshal(f.text, f.into); err != nil {
			return nil, err
		}
	}
	return yaml.Marshal(mergeMaps(l, n, o))
}

func mergeMaps(last, now, own map[string]any) map[string]any {
	out := map[string]any{}
	for key, value := range own {
		out[key] = value
	}
	for key, n := range now {
		o, inOwn := own[key]
		l, inLast := last[key]
		nm, nIsMap := n.(map[string]any)
		om, oIsMap := o.(map[string]any)
		lm, _ := l.(map[string]any)
		switch {
		case nIsMap && oIsMap:
			out[key] = mergeMaps(lm, nm, om)
		case inOwn == inLast && same(o, l):
			out[key] = n
		default:
			if ol, isList := o.([]any); isList {
				out[key] = mergeLists(list(l), list(n), ol)
			}
		}
	}
	for key, l := range last {
		if _, still := now[key]; still {
			continue
		}
		lm, lIsMap := l.(map[string]any)
		om, oIsMap := own[key].(map[string]any)
		if lIsMap && oIsMap {
			out[key] = mergeMaps(lm, nil, om) // keeps what was set in the own file
		}
		if ll, ol := list(l), list(own[key]); ll != nil && ol != nil {
			out[key] = mergeLists(ll, nil, ol)
		}
		if same(own[key], l) {
			delete(out, key)
		}
	}
	return out
}

// same compares two values as strings, because Pulumi writes numbers and booleans back as strings.
func same(a, b any) bool { return reflect.DeepEqual(texts(a), texts(b)) }

// texts returns a value with all its scalars converted to strings.
func texts(value any) any {
	switch v := value.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, inner := range v {
			out[key] = texts(inner)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = texts(inner)
		}
		return out
	case nil:
		return nil
	}
	return fmt.Sprint(value)
}

// mergeLists returns own with the items that were added between last and now, and without those
// that were removed. Every list in a stack's settings is a set of names.
func mergeLists(last, now, own []any) []any {
	has := func(items []any, item any) bool {
		return slices.ContainsFunc(items, func(other any) bool { return same(item, other) })
	}
	out := slices.DeleteFunc(slices.Clone(own), func(item any) bool { return has(last, item) && !has(now, item) })
	for _, item := range now {
		if !has(last, item) && !has(out, item) {
			out = append(out, item)
		}
	}
	return out
}

// list returns the value if it is a list, or nil.
func list(value any) []any {
	items, _ := value.([]any)
	return items
}
