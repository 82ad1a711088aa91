package workspace

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/term"

	"trading-platform/catalog"
	"trading-platform/certs"
	"trading-platform/preflight"
	"trading-platform/settings"
	"trading-platform/stack"
)

// publicPasswords returns the variables whose public default must not be used on this
// machine: a database that a secured stack has used never gets it as its password.
func (r *run) publicPasswords(ctx context.Context) ([]catalog.Variable, error) {
	p, err := r.plan(r.stack)
	if err != nil || p == nil {
		return nil, err
	}
	const password = "POSTGRES_PASSWORD" //nolint:gosec // a name
	postgres, ok := p.Lookup("postgres")
	if !ok || slices.ContainsFunc(p.Unset, func(v catalog.Variable) bool { return v.Name == password }) || !catalog.IsLocalOnly(password, postgres.Value(password)) {
		return nil, nil
	}
	if secured, err := preflight.SecuredDatabase(ctx, r.engine, p); err != nil || !secured {
		return nil, err
	}
	r.say("a secured stack has used this database, so stack " + r.stack + " gets a generated password for it")
	return []catalog.Variable{{Name: password}}, nil
}

// makeSecrets generates the secrets that the stack needs. It asks for values that cannot
// be generated, but only if there is a terminal.
func (w *Workspace) makeSecrets(ctx context.Context, name string, more []catalog.Variable, say func(string)) error {
	p, err := w.plan(name)
	if err != nil || p == nil {
		return err
	}
	var made, unknown []string
	for _, variable := range slices.Concat(p.Unset, more) {
		var value string
		switch {
		case variable.Ask:
			value = ask(variable.Name)
		case variable.Initial != "":
			value = variable.Initial
		case strings.HasSuffix(variable.Name, "_PASSWORD"):
			value = base64.URLEncoding.EncodeToString([]byte(RandomSecret()))[:32] // safe in a URL and in a shell
		default:
			value = RandomSecret()
		}
		if value == "" {
			unknown = append(unknown, variable.Name)
			continue
		}
		// On standard input, because every user can see the arguments of a process.
		err := w.runCLI(ctx, strings.NewReader(value), "config", "set", "-s", name, "--config-file", w.StackFile(name), "--secret", variable.Name)
		if err != nil {
			return err
		}
		made = append(made, variable.Name)
	}
	if len(made) > 0 {
		say("generated secrets of stack " + name + ": " + strings.Join(made, ", ") +
			" (to see one: pulumi config get -s " + name + " <NAME>)")
	}
	for _, variable := range unknown {
		fix := settings.SetCommand(name, variable, "<value>")
		if catalog.IsSecret(variable, "") {
			fix = settings.SetSecretCommand(name, variable)
		}
		say("you still have to set: " + fix)
	}
	return nil
}

// makeCerts creates the certificates of a stack that has nginx, and renews them before they expire.
func (w *Workspace) makeCerts(name string, f stackFile, say func(string)) error {
	src, err := settings.FromFiles(name, w.Root, w.StackFile(name))
	if err != nil {
		return err
	}
	set, _ := settings.Load(src) // the program says what is wrong with the settings
	if !stack.NeedsCerts(set) {
		return nil
	}
	if set.CertsDir == "" {
		set.CertsDir = w.CertsDir(name)
		f.set("certsDir", set.CertsDir)
		if err := w.save(name, f); err != nil {
			return err
		}
	}
	var clients []string
	if slices.ContainsFunc(catalog.Profiles, func(p catalog.Profile) bool { return p.ClientCerts && slices.Contains(set.Profiles, p.Name) }) {
		clients = []string{"admin"}
	}
	report, err := certs.Ensure(set.CertsDir, certs.Options{Stack: name, Names: set.ServerNames(), Clients: clients})
	if err == nil && len(report.Files) > 0 {
		say(report.String())
	}
	return err
}

// takeOver asks once whether this stack takes over the data of an old Compose stack, and
// records the answer. Without a terminal, the Pulumi program reports the settings for it.
func (r *run) takeOver(ctx context.Context, f stackFile) error {
	src, err := r.Source(r.stack)
	if err != nil {
		return err
	}
	p, set, _ := stack.Resolve(src)
	if p == nil || !term.IsTerminal(int(os.Stdin.Fd())) {
		return nil
	}
	found, err := preflight.OldCompose(ctx, r.engine, p, set)
	if err != nil {
		return err
	}
	for _, old := range found {
		answer := ask(fmt.Sprintf("The old Compose project %s has data in %s and %d more volumes. Take them over, with their data? yes or no",
			old.Project, old.Volumes["pgdata"], len(old.Volumes)-1))
		if strings.HasPrefix(strings.ToLower(answer), "y") {
			f.set("volumes", old.Volumes)
			return r.save(r.stack, f)
		}
		ignored, _ := f.get("ignoreCompose").([]any)
		f.set("ignoreCompose", append(ignored, old.Project))
		if err := r.save(r.stack, f); err != nil {
			return err
		}
	}
	return nil
}

// ask reads a value from the terminal, without echo if it is a secret. It returns "" if there is no terminal.
func ask(variable string) string {
	terminal := int(os.Stdin.Fd())
	if !term.IsTerminal(terminal) {
		return ""
	}
	fmt.Fprintf(os.Stderr, "%s: ", variable)
	if catalog.IsSecret(variable, "") {
		text, _ := term.ReadPassword(terminal)
		fmt.Fprintln(os.Stderr)
		return strings.TrimSpace(string(text))
	}
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	return strings.TrimSpace(line)
}
