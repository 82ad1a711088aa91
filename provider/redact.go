package provider

import (
	"net/url"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
)

// redact blots out the resource's secrets, should a program or a build print them.
func (c call) redact(text string) string {
	for _, secret := range secretTexts(resource.NewProperty(c.inputs), false) {
		text = strings.ReplaceAll(text, secret, "[secret]")
	}
	return text
}

// minSecret is the shortest secret that is blotted out: a shorter one would blot out
// ordinary words, and one secret variable makes Pulumi treat all of a list as secret.
const minSecret = 6

// secretTexts are the secrets in a property, longest first: values of variables,
// passwords in URLs, lines of files.
func secretTexts(v resource.PropertyValue, inside bool) []string {
	var texts []string
	switch {
	case v.IsSecret():
		texts = secretTexts(v.SecretValue().Element, true)
	case v.IsArray():
		for _, e := range v.ArrayValue() {
			texts = append(texts, secretTexts(e, inside)...)
		}
	case v.IsObject():
		for _, e := range v.ObjectValue() {
			texts = append(texts, secretTexts(e, inside)...)
		}
	case v.IsString() && inside:
		for line := range strings.SplitSeq(v.StringValue(), "\n") {
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
