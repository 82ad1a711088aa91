package timing

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// The version, and the ID or name of one object, in a path of the engine's API.
var (
	version = regexp.MustCompile(`/v[0-9]+\.[0-9]+/`)
	object  = regexp.MustCompile(`/(containers|images|networks|volumes)/(?:.+(/[a-z]+)|[^/]{12,})$`)
)

// callName is the name that all calls of a kind have.
func callName(name string) string {
	name = strings.TrimPrefix(strings.TrimPrefix(name, "/"), "pulumirpc.")
	return object.ReplaceAllString(version.ReplaceAllString(name, "/"), "/$1/{id}$2")
}

// ReadTraces reads the calls that Pulumi's processes answered from the file that its flag
// --otel-traces wrote: OTLP in JSON, one message a line. Its IDs are hexadecimal, unlike
// those of other messages in JSON, and are not read.
func ReadTraces(path string) ([]Span, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var spans []Span
	for line := range bytes.Lines(text) {
		var message tracepb.TracesData
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(line, &message); err != nil {
			return nil, fmt.Errorf("reading Pulumi's trace %s: %w", path, err)
		}
		for _, resource := range message.GetResourceSpans() {
			process := ""
			for _, a := range resource.GetResource().GetAttributes() {
				if a.GetKey() == "service.name" {
					process = a.GetValue().GetStringValue()
				}
			}
			for _, scope := range resource.GetScopeSpans() {
				for _, s := range scope.GetSpans() {
					start, end := unixNano(s.GetStartTimeUnixNano()), unixNano(s.GetEndTimeUnixNano())
					spans = append(spans, Span{process, callName(s.GetName()), start, end})
				}
			}
		}
	}
	slices.SortStableFunc(spans, func(a, b Span) int { return a.Start.Compare(b.Start) })
	return spans, nil
}

func unixNano(at uint64) time.Time { return time.Unix(0, int64(at)) } //nolint:gosec // not before the year 2262
