package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/distribution/reference"
	"github.com/joho/godotenv"

	"trading-platform/catalog"
	"trading-platform/engine"
	"trading-platform/fault"
)

// decoder reads typed values from a source. It records an invalid value as a fault and
// continues with a default, so that the faults after it are found as well.
type decoder struct {
	src    Source
	known  []string // the keys that were read; no others exist
	faults fault.List
}

// fault records what is wrong with a key.
func (d *decoder) fault(key, fix, what string, args ...any) {
	d.faults.Add(Project+":"+key, fix, what, args...)
}

// invalid records a value that is not what the setting needs; want says what it needs.
func (d *decoder) invalid(key, value, want, example string) {
	if d.src.Secret[key] {
		value = Hidden
	}
	d.fault(key, SetCommand(d.src.Stack, key, example), "%q is not %s", value, want)
}

// wrongShape records a value that is not the list or map that it should be. The fix
// removes it first, because Pulumi cannot set a path inside of another type.
func (d *decoder) wrongShape(key, value, want, path, example string) {
	if d.src.Secret[key] {
		value = Hidden
	}
	d.fault(key, "pulumi config rm -s "+d.src.Stack+" "+key+" && "+SetCommand(d.src.Stack, "--path "+path, example), "%q is not %s", value, want)
}

func (d *decoder) raw(key string) (string, bool) {
	d.known = append(d.known, key)
	value := strings.TrimSpace(d.src.Config[key])
	return value, value != ""
}

func (d *decoder) text(key, fallback string) string {
	if value, ok := d.raw(key); ok {
		return value
	}
	return fallback
}

func (d *decoder) integer(key string, fallback int) int {
	value, ok := d.raw(key)
	if !ok {
		return fallback
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		d.invalid(key, value, "a whole number", strconv.Itoa(fallback))
	}
	return n
}

func (d *decoder) boolean(key string, fallback bool) bool {
	switch value, ok := d.raw(key); {
	case !ok:
		return fallback
	case value == "true" || value == "false":
		return value == "true"
	default:
		d.invalid(key, value, "true or false", strconv.FormatBool(fallback))
		return fallback
	}
}

func (d *decoder) address(key, fallback string) netip.Addr {
	value := d.text(key, fallback)
	a, err := netip.ParseAddr(value)
	if err != nil {
		d.invalid(key, value, "an IP address", fallback)
		return netip.MustParseAddr(fallback)
	}
	return a
}

func (d *decoder) prefix(key, fallback string) netip.Prefix {
	value := d.text(key, fallback)
	p, err := netip.ParsePrefix(value)
	if err != nil || !p.Addr().Is4() || p.Bits() > 28 {
		d.invalid(key, value, "an IPv4 subnet of at least 16 addresses, such as 172.28.0.0/16", fallback)
		return netip.MustParsePrefix(fallback)
	}
	if p != p.Masked() {
		d.fault(key, SetCommand(d.src.Stack, key, p.Masked().String()), "%s has host bits set", value)
	}
	return p.Masked()
}

// addressIn reads an address that lies in a subnet; the default is the subnet's tenth.
func (d *decoder) addressIn(key string, subnet netip.Prefix) netip.Addr {
	tenth := subnet.Addr()
	for range 10 {
		tenth = tenth.Next()
	}
	a := d.address(key, tenth.String())
	if a.IsValid() && (!subnet.Contains(a) || a == subnet.Addr() || a == subnet.Addr().Next()) {
		d.fault(key, SetCommand(d.src.Stack, key, tenth.String()),
			"%s is not an address that a container can have in the subnet %s (its first is the gateway)", a, subnet)
	}
	return a
}

func (d *decoder) version(key string) Version {
	value, ok := d.raw(key)
	if !ok {
		return Version{}
	}
	major, minor, _ := strings.Cut(value, ".")
	v := Version{}
	var err1, err2 error
	v.Major, err1 = strconv.Atoi(major)
	v.Minor, err2 = strconv.Atoi(minor)
	if errors.Join(err1, err2) != nil {
		d.invalid(key, value, `an API version such as "1.44" (quote it)`, `'"1.44"'`)
	}
	return v
}

func (d *decoder) choice(key string, choices ...string) string {
	value := d.text(key, choices[0])
	if !slices.Contains(choices, value) {
		d.invalid(key, value, "one of "+strings.Join(choices, ", "), choices[0])
	}
	return value
}

func (d *decoder) path(key string) string {
	value, _ := d.raw(key)
	home, _ := os.UserHomeDir()
	return Path(d.src.Root, home, value)
}

// folder reads the path of a folder that must exist.
func (d *decoder) folder(key string) string {
	path := d.path(key)
	if path == "" {
		return ""
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		d.fault(key, SetCommand(d.src.Stack, key, "<folder>")+", or: pulumi config rm -s "+d.src.Stack+" "+key,
			"%s is not a folder", path)
	}
	return path
}

// list reads a list of strings. example is an item that the fix sets.
func (d *decoder) list(key, kind, example string) []string {
	value, ok := d.raw(key)
	if !ok {
		return nil
	}
	var items []string
	if err := json.Unmarshal([]byte(value), &items); err != nil {
		d.wrongShape(key, value, "a list of "+kind, "'"+key+"[0]'", example)
		return nil
	}
	slices.Sort(items)
	return slices.Compact(items)
}

// names reads a list of known names.
func (d *decoder) names(key, kind string, known []string) []string {
	names := d.list(key, kind+" names", known[0])
	for _, name := range names {
		d.checkName(key, kind, name, known)
	}
	return names
}

// engine reads the engine that `platform init` recorded. It must have both an ID and a host.
func (d *decoder) engine(key string) engine.Ref {
	value, ok := d.raw(key)
	if !ok {
		return engine.Ref{}
	}
	var ref engine.Ref
	if err := json.Unmarshal([]byte(value), &ref); err != nil || (ref.ID == "") != (ref.Host == "") {
		d.fault(key, "pulumi config rm -s "+d.src.Stack+" "+key+"; the next `platform up` records it again",
			"%q is not the id and host of an engine, as `platform init` writes them", value)
	}
	return ref
}

func (d *decoder) checkName(key, kind, name string, known []string) {
	if !slices.Contains(known, name) {
		d.fault(key, fmt.Sprintf("use one of %s", strings.Join(known, ", ")),
			"no %s %q%s", kind, name, fault.DidYouMean(name, known))
	}
}

// scalars reads a map of strings, numbers and booleans. It returns them as strings.
func (d *decoder) scalars(key string) map[string]string {
	value, ok := d.raw(key)
	if !ok {
		return nil
	}
	object := map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(value), &object); err != nil {
		d.wrongShape(key, value, "a map", key+".<name>", "<value>")
		return nil
	}
	out := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		text, ok := scalar(object[name])
		if !ok {
			d.fault(key+"."+name, SetCommand(d.src.Stack, "--path "+key+"."+name, "<value>"), "is not a plain value")
			continue
		}
		out[name] = text
	}
	return out
}

func scalar(raw json.RawMessage) (string, bool) {
	text := string(raw)
	switch {
	case text == "null":
		return "", true
	case strings.HasPrefix(text, `"`):
		var s string
		err := json.Unmarshal(raw, &s)
		return s, err == nil
	}
	return text, !strings.HasPrefix(text, "{") && !strings.HasPrefix(text, "[")
}

// texts reads a map of strings whose keys are known names.
func (d *decoder) texts(key, kind string, known []string) map[string]string {
	all := d.scalars(key)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		d.checkName(key, kind, name, known)
		if all[name] == "" {
			delete(all, name)
		}
	}
	return all
}

// images reads a map of image references.
func (d *decoder) images(key string) map[string]string {
	all := d.texts(key, "service", append(catalog.ServiceNames(), Reference))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if _, err := reference.ParseNormalizedNamed(all[name]); err != nil {
			d.fault(key+"."+name, SetCommand(d.src.Stack, "--path "+key+"."+name, "<repository>:<tag>"), "%q is not an image reference: %v", all[name], err)
		}
	}
	return all
}

// numbers reads a map of integers from lowest to highest; hint is appended to the message of a fault.
func (d *decoder) numbers(key, kind string, known []string, lowest, highest int, hint string) map[string]int {
	out := map[string]int{}
	for name, text := range d.texts(key, kind, known) {
		n, err := strconv.Atoi(text)
		if err != nil || n < lowest || n > highest {
			d.fault(key+"."+name, SetCommand(d.src.Stack, "--path "+key+"."+name, strconv.Itoa(lowest)),
				"%q is not a number from %d to %d%s", text, lowest, highest, hint)
			continue
		}
		out[name] = n
	}
	return out
}

// scalable returns the names of the services that can have replicas.
func scalable() []string {
	var names []string
	for _, s := range catalog.Services() {
		if s.Scalable {
			names = append(names, s.Name)
		}
	}
	return names
}

func (d *decoder) serviceEnv(key string) map[string]map[string]Value {
	value, ok := d.raw(key)
	if !ok {
		return nil
	}
	object := map[string]map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(value), &object); err != nil {
		d.wrongShape(key, value, "a map of services to maps of variables", key+".<service>.<NAME>", "<value>")
		return nil
	}
	out := map[string]map[string]Value{}
	for _, service := range slices.Sorted(maps.Keys(object)) {
		d.checkName(key, "service", service, catalog.ServiceNames())
		out[service] = map[string]Value{}
		for name, raw := range object[service] {
			text, ok := scalar(raw)
			if !ok || !variableName.MatchString(name) {
				d.fault(key+"."+service+"."+name, SetCommand(d.src.Stack, "--path "+key+"."+service+"."+name, "<value>"),
					"is not a variable with a plain value")
				continue
			}
			out[service][name] = Value{Text: text, Secret: d.src.Secret[key]}
		}
		d.checkValues(key+"."+service+".", out[service])
	}
	return out
}

var (
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	upperCase    = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)
	// What the engine accepts in names of containers and, in lower case, of images.
	enginePrefix = regexp.MustCompile(`^[a-zA-Z0-9]+((\.|_|__|-)[a-zA-Z0-9]+)*$`)
)

// variables reads the user's variables from the dotenv file and from the stack config,
// which takes precedence. A dotenv file may contain variables that no service uses; the
// config may not.
func (d *decoder) variables() map[string]Value {
	out := map[string]Value{}
	known := catalog.UserVariables()
	if path := d.path("envFile"); path != "" {
		file, err := godotenv.Read(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			d.fault("envFile", "write it with one NAME=value per line, or: pulumi config rm -s "+d.src.Stack+" envFile", "file %s does not exist", path)
		case err != nil:
			// The library's error quotes the line that it cannot read, which may contain a secret.
			d.fault("envFile", "write one NAME=value per line, and close all quotes", "%s cannot be read as a dotenv file", path)
		}
		for _, name := range known {
			if file[name] != "" {
				out[name] = Value{Text: file[name]}
			}
		}
	}
	for name, text := range d.scalars("env") {
		if !slices.Contains(known, name) {
			d.fault("env."+name, "to give a service a variable of your own, set serviceEnv.<service>."+name,
				"no service uses this variable%s", fault.DidYouMean(name, known))
			continue
		}
		if text != "" {
			out[name] = Value{Text: text, Secret: d.src.Secret["env"]}
		}
	}
	for _, name := range known {
		if text := d.src.Config[name]; text != "" {
			out[name] = Value{Text: text, Secret: d.src.Secret[name]}
		}
	}
	d.known = append(d.known, known...)
	d.checkValues("", out)
	return out
}

// maxVariableSize is the largest variable that Linux accepts, including its name, the equals sign and the final NUL.
const maxVariableSize = 128 << 10

// singleLine lists the variables whose value becomes part of one line of another program's input.
var singleLine = []string{"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB", "REDIS_PASSWORD"}

// checkValues records values that cannot be passed to a container. path is the prefix of
// the variables' keys, empty for variables of the stack config. No value is printed.
func (d *decoder) checkValues(path string, values map[string]Value) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		text := values[name].Text
		var what string
		switch {
		case strings.ContainsRune(text, 0):
			what = "contains a NUL character, which a variable cannot"
		case !utf8.ValidString(text):
			what = "is not valid UTF-8, which Pulumi's config requires"
		case len(name)+len(text)+2 > maxVariableSize:
			what = "is longer than the 128 KiB that Linux allows for a variable"
		case strings.ContainsAny(text, "\r\n") && slices.Contains(singleLine, name):
			what = "contains a line break, but must be a single line"
		default:
			continue
		}
		key := path + name
		if path != "" {
			key = "--path " + key
		}
		d.fault(path+name, SetSecretCommand(d.src.Stack, key), "%s", what)
	}
}

// maxPrefixLength leaves room for the rest of the names of containers and images.
const maxPrefixLength = 63

// unknown records the keys that no setting has.
func (d *decoder) unknown() {
	for _, key := range slices.Sorted(maps.Keys(d.src.Config)) {
		if slices.Contains(d.known, key) {
			continue
		}
		kind := "setting"
		if upperCase.MatchString(key) {
			kind = "variable"
		}
		d.fault(key, "pulumi config rm -s "+d.src.Stack+" "+key, "no such %s%s", kind, fault.DidYouMean(key, d.known))
	}
}

// check records values that are invalid in combination, or by the engine's rules.
func (d *decoder) check(s *Settings) {
	if !enginePrefix.MatchString(s.NamePrefix) || len(s.NamePrefix) > maxPrefixLength {
		d.invalid("namePrefix", s.NamePrefix, "a name that the engine accepts for containers and images (letters and digits, with a single . _ - between them, 63 at most)", "trading_platform")
	}
	if !strings.HasPrefix(s.DockerRoot, "/") || strings.Contains(s.DockerRoot, ":") {
		d.invalid("dockerRoot", s.DockerRoot, "the absolute path of a folder on the engine's host", "/var/lib/docker")
	}
	if s.PortOffset < 0 || s.PortOffset > 50000 {
		d.invalid("portOffset", strconv.Itoa(s.PortOffset), "between 0 and 50000", "1000")
	}
	for _, p := range catalog.Profiles {
		for other, why := range p.Conflicts {
			if slices.Contains(s.Profiles, p.Name) && slices.Contains(s.Profiles, other) {
				d.fault("profiles", fmt.Sprintf(
					"use two stacks, one of them with another namePrefix, portOffset and subnet: pulumi up -s %s, pulumi up -s %s", p.Name, other),
					"%s and %s cannot be in one stack: %s", p.Name, other, why)
			}
		}
	}
}
