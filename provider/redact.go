package provider

import (
	"net/url"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/property"
)

// redact masks the resource's secrets in a text, in case a program or a build prints them.
func (c call) redact(text string) string {
	for _, secret := range secretTexts(property.New(c.inputs), false) {
		text = strings.ReplaceAll(text, secret, "[secret]")
	}
	return text
}

// minSecret is the length of the shortest secret that is masked. A shorter one could be part of
// ordinary words, and one secret variable makes Pulumi treat a whole list as secret.
const minSecret = 6

// secretTexts are the secrets in a property, longest first: values of variables,
// passwords in URLs, lines of files.
func secretTexts(v property.Value, inside bool) []string {
	var texts []string
	inside = inside || v.Secret()
	switch {
	case v.IsArray():
		for _, e := range v.AsArray().All {
			texts = append(texts, secretTexts(e, inside)...)
		}
	case v.IsMap():
		for _, e := range v.AsMap().All {
			texts = append(texts, secretTexts(e, inside)...)
		}
	case v.IsString() && inside:
		for line := range strings.SplitSeq(v.AsString(), "\n") {
			line = strings.TrimSpace(line)
			_, value, isVariable := strings.Cut(line, "=")
			if !isVariable {
				value = line
			}
			texts = append(texts, value)
			if u, err := url.Parse(value); err == nil && u.User != nil {
				password, _ := u.User.Password()
				texts = append(texts, password)
			}
		}
	}
	texts = slices.DeleteFunc(texts, func(t string) bool { return len(t) < minSecret })
	slices.SortFunc(texts, func(a, b string) int { return len(b) - len(a) })
	return texts
}
