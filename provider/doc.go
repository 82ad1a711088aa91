// Package provider is a Pulumi resource provider for the Docker engine. It
// serves the part of the official docker provider's resource types (pulumi-docker
// v4) that this program uses, with the same property names, for machines that
// cannot download that plugin.
//
// It holds itself to more: it waits on engine events and stops waiting as soon as a
// container has failed, says what it waits for, sees drift of environment, labels
// and running state, replaces a container where an update could not reach it,
// deletes what is gone already without an error, and changes nothing in a read.
//
// One file holds one resource; provider.go holds what they share.
package provider
