// Package provider is a Pulumi resource provider for the Docker engine. It
// serves the part of the official docker provider's resource types (pulumi-docker
// v4) that this program uses, with the same property names, for machines that
// cannot download that plugin.
//
// It differs from the official provider in some ways. It waits on engine events, shows what it waits for, and
// stops waiting as soon as a container has failed. It replaces a container that an update cannot change. Deleting
// a resource that no longer exists is not an error, and a read changes nothing.
//
// Each resource has its own file. provider.go and kind.go have what they share.
package provider
