package provider

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

const (
	// stackLabel and identityLabel say which stack a container or network belongs to; package plan sets them.
	stackLabel    = "trading-platform.stack"
	identityLabel = "trading-platform.id"
	// hashLabel holds a hash of everything that a container or network was created from.
	// It shows whether an object that no state knows matches the specification.
	hashLabel = "trading-platform.spec"
)

// hashRounds slows down guessing a password from the hash, because everyone who can list
// containers can read their labels. It costs a few milliseconds a container.
const hashRounds = 20_000

// withHash returns the labels with a hash of them and of the parts that the object is created from.
func withHash(labels []label, parts ...any) map[string]string {
	all := map[string]string{}
	for _, l := range labels {
		all[l.Label] = l.Value
	}
	bytes, _ := json.Marshal(append(parts, all)) // encoding plain structs cannot fail
	sum := sha256.Sum256(bytes)
	for range hashRounds {
		sum = sha256.Sum256(sum[:])
	}
	all[hashLabel] = hex.EncodeToString(sum[:])
	return all
}

// isOurs reports whether an existing object belongs to the stack of the wanted labels.
// Older versions set no identity, so their objects are recognised by the stack's name.
func isOurs(existing map[string]string, wanted []label) bool {
	want := labelMap(wanted)
	stack := want[stackLabel]
	identity, labelled := existing[identityLabel]
	return stack != "" && existing[stackLabel] == stack && (!labelled || identity == want[identityLabel])
}

// label is one label, as the official provider spells it.
type label struct {
	Label string `pulumi:"label"`
	Value string `pulumi:"value"`
}

func labelMap(labels []label) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	byName := map[string]string{}
	for _, l := range labels {
		byName[l.Label] = l.Value
	}
	return byName
}
