// Package fault collects everything that is wrong, so that the user sees all of it at
// once, each fault with its place and with what fixes it.
package fault

import (
	"errors"
	"fmt"
	"strings"

	"github.com/agext/levenshtein"
)

// Fault is one thing that is wrong.
type Fault struct {
	Where string // the setting, variable or service, e.g. "trading-platform:portOffset"
	What  string // what is wrong with it
	Fix   string // the command or setting that fixes it
}

// List is a set of faults that is an error when it is not empty. Use Err to
// return one: an empty List in an error variable would not be nil.
type List []Fault

// Add appends a fault. The arguments format what.
func (l *List) Add(where, fix, what string, args ...any) {
	*l = append(*l, Fault{Where: where, Fix: fix, What: fmt.Sprintf(what, args...)})
}

// Gather appends the faults of an error. It returns any error that is not a List.
func (l *List) Gather(err error) error {
	var more List
	if errors.As(err, &more) {
		*l = append(*l, more...)
		return nil
	}
	return err
}

// Err returns the list as an error, or nil if it is empty.
func (l List) Err() error {
	if len(l) == 0 {
		return nil
	}
	return l
}

// Error returns all faults, after a line with their number.
func (l List) Error() string {
	heading := "One thing is wrong, and nothing was changed:"
	if len(l) != 1 {
		heading = fmt.Sprintf("%d things are wrong, and nothing was changed:", len(l))
	}
	return heading + l.Lines()
}

// Lines returns all faults, numbered, each on lines of its own.
func (l List) Lines() string {
	var b strings.Builder
	for i, f := range l {
		fmt.Fprintf(&b, "\n  %d. %s: %s", i+1, f.Where, f.What)
		if f.Fix != "" {
			fmt.Fprintf(&b, "\n     Fix: %s", f.Fix)
		}
	}
	return b.String()
}

// DidYouMean returns "; did you mean x?" for the known word that is most similar to
// word, or "" if none is similar.
func DidYouMean(word string, known []string) string {
	best, distance := "", len(word)/2+1
	for _, k := range known {
		if d := levenshtein.Distance(strings.ToLower(word), strings.ToLower(k), nil); d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}
