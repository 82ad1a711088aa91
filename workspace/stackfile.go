package workspace

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"

	"go.yaml.in/yaml/v3"

	"trading-platform/settings"
)

// stackFile is the decoded content of a stack's own file.
type stackFile map[string]any

func (w *Workspace) load(stack string) (stackFile, error) {
	text, err := os.ReadFile(w.StackFile(stack))
	if err != nil {
		return nil, err
	}
	return decode(text)
}

// decode returns the content of a stack file. It is never nil.
func decode(text []byte) (map[string]any, error) {
	f := map[string]any{}
	err := yaml.Unmarshal(text, &f)
	return f, err
}

func (w *Workspace) save(stack string, f stackFile) error {
	text, err := yaml.Marshal(f)
	if err != nil {
		return err
	}
	return writeFile(w.StackFile(stack), text)
}

// config returns the file's config map.
func (f stackFile) config() map[string]any {
	c, ok := f["config"].(map[string]any)
	if !ok {
		c = map[string]any{}
		f["config"] = c
	}
	return c
}

func (f stackFile) get(key string) any        { return f.config()[settings.Project+":"+key] }
func (f stackFile) set(key string, value any) { f.config()[settings.Project+":"+key] = value }

// SetConfig sets one key of the stack's own file. It replaces the file atomically.
func (w *Workspace) SetConfig(stack, key string, value any) error {
	f, err := w.load(stack)
	if err != nil {
		return err
	}
	f.set(key, value)
	return w.save(stack, f)
}

// MergeTracked merges edits of the tracked stack file into the stack's own file.
//
// It is a three-way merge of the tracked file at the last merge, the tracked file now, and
// the own file. A value that the own file has from the tracked one is updated; a value
// that was set in the own file is kept. Lists are merged item by item, so that services
// which the tracked file disables are added to those which this machine disables. A stack
// without a tracked file has only its own file.
func (w *Workspace) MergeTracked(stack string) error {
	own, err1 := readFile(w.StackFile(stack))
	last, err2 := readFile(w.lastTracked(stack))
	now, err3 := w.tracked(stack)
	if err := errors.Join(err1, err2, err3); err != nil || own == nil || bytes.Equal(last, now) {
		return err
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
	l, err1 := decode(last)
	n, err2 := decode(now)
	o, err3 := decode(own)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	return yaml.Marshal(mergeMaps(l, n, o))
}

// mergeMaps merges three maps key by key. Where one is not a map, its nil has no keys.
func mergeMaps(last, now, own map[string]any) map[string]any {
	out := map[string]any{}
	for _, from := range []map[string]any{own, now} {
		for key := range from {
			if value := mergeValues(last[key], now[key], own[key]); value != nil {
				out[key] = value
			}
		}
	}
	return out
}

// mergeValues returns the merged value of a key, and nil for one that none of the files should have.
func mergeValues(last, now, own any) any {
	lastMap, _ := last.(map[string]any)
	nowMap, nowIsMap := now.(map[string]any)
	ownMap, ownIsMap := own.(map[string]any)
	ownList, ownIsList := own.([]any)
	switch {
	case ownIsMap && nowIsMap:
		return mergeMaps(lastMap, nowMap, ownMap)
	case same(own, last):
		return now
	case ownIsMap && lastMap != nil && now == nil:
		return mergeMaps(lastMap, nil, ownMap)
	case ownIsList:
		return mergeLists(list(last), list(now), ownList)
	}
	return own
}

// same compares two values as strings, because Pulumi writes numbers and booleans back as strings.
func same(a, b any) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

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
