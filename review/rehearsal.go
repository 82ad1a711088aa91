package review

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jstemmer/go-junit-report/v2/junit"
)

// Rehearsal is what was measured when a change was applied to a stack with data and traffic, and taken back.
type Rehearsal struct {
	Stack    string    `json:"stack"`
	Seed     string    `json:"seed"`          // where its data came from
	Up       float64   `json:"upSeconds"`     // of the base's first up
	Forward  Step      `json:"forward"`       // base → head
	Back     Step      `json:"back,omitzero"` // head → base
	Findings []Finding `json:"findings"`
}

// Step is one up that changes the stack from one revision to the other.
type Step struct {
	From     string     `json:"from"`
	To       string     `json:"to"`
	Up       float64    `json:"upSeconds"`
	Failed   string     `json:"failed,omitempty"` // the end of what a failed up printed
	Order    []string   `json:"order,omitempty"`  // the services in the order in which their containers were created
	Services []Measured `json:"services"`
	Data     []Count    `json:"data"`
}

// Measured is what happened to a service.
type Measured struct {
	Service   string `json:"service"`
	Predicted string `json:"predicted"` // kept, replaced, created or deleted; several for replicas
	Measured  string `json:"measured"`  // the same words, or restarted
	Waits     bool   `json:"waits,omitempty"`
	// Outage is how many seconds the service could not answer: between two answers, or, for one that cannot be called, between the
	// stop of its container and its health.
	Outage      float64  `json:"outageSeconds"`
	Calls       int      `json:"calls"`
	FailedCalls int      `json:"failedCalls"`
	Warnings    []string `json:"warnings,omitempty"` // lines of its log of a sort that it had none of
	ImageBefore int64    `json:"imageBytesBefore,omitempty"`
	ImageAfter  int64    `json:"imageBytesAfter,omitempty"`
}

// Count is a number of rows, keys or list entries.
type Count struct {
	Name   string `json:"name"`
	Before int    `json:"before"`
	After  int    `json:"after"` // Unreadable if nothing answers
}

// Unreadable is the count of what cannot be read.
const Unreadable = -1

// Finding is something that was predicted and did not happen, or happened and was not predicted, or is bad either way.
type Finding struct {
	Severity Severity `json:"severity"`
	Back     bool     `json:"back,omitempty"` // it is about the way back
	Subject  string   `json:"subject"`
	Text     string   `json:"text"`
}

// tolerated is how many seconds a service may be slow on a busy machine before it counts as an outage that was not predicted.
const tolerated = 5

// Predicted returns what the change is expected to do to the containers of a service.
func (s Stack) Predicted(service string) string {
	var words []string
	for _, i := range s.items("service") {
		for _, one := range []struct {
			containers []string
			word       string
		}{{i.Created, "created"}, {i.Deleted, "deleted"}, {i.Replaced, "replaced"}} {
			if i.Name == service && len(one.containers) > 0 {
				words = append(words, one.word)
			}
		}
	}
	return cmp.Or(strings.Join(words, ", "), "kept")
}

// Waits reports whether a service is expected to wait for one that is replaced.
func (s Stack) Waits(service string) bool {
	return slices.ContainsFunc(s.Items, func(i Item) bool {
		return (len(i.Replaced) > 0 || i.Kind == Removed) && slices.Contains(i.Waiting, service)
	})
}

// Judge compares what was measured with what the plans predict, there and back, and sets Findings.
func (r *Rehearsal) Judge(forward, back Stack) {
	r.Findings = r.Forward.judge(forward, false)
	if r.Back.To != "" {
		r.Findings = append(r.Findings, r.Back.judge(back, true)...)
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return a.Severity.rank() - b.Severity.rank() })
}

func (s Step) judge(diff Stack, back bool) (found []Finding) {
	say := func(severity Severity, subject, text string, args ...any) {
		found = append(found, Finding{severity, back, subject, fmt.Sprintf(text, args...)})
	}
	var expected []string
	for _, i := range slices.Concat(diff.items("fault"), diff.items("data")) {
		expected = append(expected, strings.TrimSpace(i.Name+" "+i.Text))
	}
	doubt := strings.Join(expected, "; ")
	switch {
	case s.Failed != "" && back:
		say(Outage, "up", "fails on the way back, so that the change cannot be undone by an up")
	case s.Failed != "" && doubt == "":
		say(Outage, "up", "fails, and nothing predicted it")
	case s.Failed != "":
		say(Outage, "up", "fails; predicted: %s", doubt)
	case len(diff.items("fault")) > 0:
		say(None, "up", "succeeds; predicted: %s", doubt)
	}
	for _, m := range s.Services {
		if m.Measured != m.Predicted && s.Failed == "" {
			say(Restart, m.Service, "predicted: %s; measured: %s", m.Predicted, m.Measured)
		}
		if m.Outage > tolerated && m.Predicted == "kept" && !m.Waits {
			say(Outage, m.Service, "could not answer for %.1f s, and nothing predicted it", m.Outage)
		}
	}
	lost := false
	for _, c := range s.Data {
		if lost = lost || c.After < c.Before; c.After == Unreadable && c.Before != Unreadable {
			say(DataAtRisk, c.Name, "%d before, cannot be read after", c.Before)
		} else if c.After < c.Before {
			say(DataAtRisk, c.Name, "%d before, %d after", c.Before, c.After)
		}
	}
	if len(diff.items("data")) > 0 && !lost && s.Failed == "" {
		say(None, "data", "all of it is there; predicted: %s", doubt)
	}
	return found
}

// Touched returns the services to which something happened, or was predicted to.
func (s Step) Touched() []Measured {
	return slices.DeleteFunc(slices.Clone(s.Services), func(m Measured) bool {
		return m.Predicted == "kept" && m.Measured == "kept" && m.FailedCalls == 0 && len(m.Warnings) == 0 && m.ImageBefore == m.ImageAfter
	})
}

// JUnit writes the report as the results of tests: for each stack whether data is safe, the stack comes up and the rules are kept, and
// of a rehearsal whether it found anything.
func (r Report) JUnit(w io.Writer) error {
	suite := junit.Testsuite{Name: r.Base + " → " + r.Head}
	add := func(class, name string, wrong []string) {
		c := junit.Testcase{Classname: class, Name: name}
		if len(wrong) > 0 {
			c.Failure = &junit.Result{Message: wrong[0], Data: strings.Join(wrong, "\n")}
		}
		suite.AddTestcase(c)
	}
	for _, s := range r.Stacks {
		for _, sort := range [][2]string{{"data", "no data is at risk"}, {"fault", "nothing new keeps it from coming up"}, {"policy", "no rule is newly broken"}} {
			var wrong []string
			for _, i := range s.items(sort[0]) {
				wrong = append(wrong, strings.TrimSpace(i.Name+" "+i.Text))
			}
			add("stack "+s.Name, sort[1], wrong)
		}
	}
	if r.Rehearsal != nil {
		wrong := map[bool][]string{}
		for _, f := range r.Rehearsal.Findings {
			wrong[f.Back] = append(wrong[f.Back], f.Subject+": "+f.Text)
		}
		add("rehearsal of "+r.Rehearsal.Stack, "the change does what was predicted", wrong[false])
		add("rehearsal of "+r.Rehearsal.Stack, "the change can be undone", wrong[true])
	}
	var all junit.Testsuites
	all.AddSuite(suite)
	return all.WriteXML(w)
}
