package provider

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

const (
	// stackLabel and identityLabel say whose a container or network is; package plan sets them.
	stackLabel    = "trading-platform.stack"
	identityLabel = "trading-platform.id"
	// hashLabel holds a hash of everything that a container or network was made from,
	// so that one which no state knows is recognised as what is wanted.
	hashLabel = "trading-platform.spec"
)

// hashRounds makes guessing a password from the hash slow: everyone who may list
// containers can read their labels. It costs a few milliseconds a container.
const hashRounds = 20_000

// withHash is the labels and the hash of them and of the parts that the object is made from.
func withHash(labels []label, parts ...any) map[string]string {
	all := map[string]string{}
	for _, l := range labels {
		all[l.Label] = l.Value
	}
	bytes, _ := json.Marshal(append(parts, all)) // of plain structs, which cannot fail
	sum := sha256.Sum256(bytes)
	for range hashRounds {
		sum = sha256.Sum256(sum[:])
	}
	all[hashLabel] = hex.EncodeToString(sum[:])
	return all
}

// isOurs reports whether an existing object belongs to the stack of the wanted labels.
// Older versions set no identity: their objects go by the stack's name.
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
