package timing

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
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
// --otel-traces wrote: OTLP in JSON, https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding,
// one message a line.
func ReadTraces(path string) ([]Span, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var spans []Span
	decoder := json.NewDecoder(file)
	for decoder.More() {
		var message struct {
			ResourceSpans []struct {
				Resource struct {
					Attributes []struct {
						Key   string
						Value struct{ StringValue string }
					}
				}
				ScopeSpans []struct {
					Spans []struct{ Name, StartTimeUnixNano, EndTimeUnixNano string }
				}
			}
		}
		if err := decoder.Decode(&message); err != nil {
			return nil, fmt.Errorf("reading Pulumi's trace %s: %w", path, err)
		}
		for _, resource := range message.ResourceSpans {
			process := ""
			for _, a := range resource.Resource.Attributes {
				if a.Key == "service.name" {
					process = a.Value.StringValue
				}
			}
			for _, scope := range resource.ScopeSpans {
				for _, s := range scope.Spans {
					start, err1 := strconv.ParseInt(s.StartTimeUnixNano, 10, 64)
					end, err2 := strconv.ParseInt(s.EndTimeUnixNano, 10, 64)
					if err1 == nil && err2 == nil {
						spans = append(spans, Span{process, callName(s.Name), time.Unix(0, start), time.Unix(0, end)})
					}
				}
			}
		}
	}
	slices.SortStableFunc(spans, func(a, b Span) int { return a.Start.Compare(b.Start) })
	return spans, nil
}
