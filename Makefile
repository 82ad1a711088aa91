# The stack's everyday commands. Each is a plain pulumi or platform command, with
# what a clean machine lacks put in place first.
STACK ?= dev
ARGS  ?=
PASS   = $(if $(ARGS),-- $(ARGS))

.DEFAULT_GOAL := help
.PHONY: help init up preview preview-all refresh down plan doctor status env platform test unit live live-official lint

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  STACK=$(STACK) names the stack: base, dev, workers, mtls, oauth2, manual; ARGS= goes to pulumi"

platform:
	@[ -x bin/platform ] || echo "building bin/platform, once (about a minute)" >&2
	@go build -o bin/platform ./cmd/platform

init: platform ## put in place what the stack needs on this machine
	@bin/platform init -s $(STACK)

up: platform ## bring the stack up, every service healthy
	@bin/platform up -s $(STACK) $(PASS)

preview: platform ## show what an up would change
	@bin/platform preview -s $(STACK) $(PASS)

preview-all: platform ## preview every stack from nothing, as a pull request does; leaves nothing behind
	@bin/platform preview-all $(ARGS)

refresh: platform ## take over into the state what happened outside of pulumi
	@bin/platform refresh -s $(STACK) $(PASS)

down: platform ## take the stack down; its volumes and their data stay
	@bin/platform down -s $(STACK) $(PASS)

plan: platform ## print what the stack consists of
	@bin/platform plan -s $(STACK) $(ARGS)

doctor: platform ## find what would keep the stack from coming up
	@bin/platform doctor -s $(STACK)

status: platform ## show how the stack's containers are doing
	@bin/platform status -s $(STACK)

env: platform ## print what a shell needs for plain pulumi commands: eval "$$(make -s env)"
	@bin/platform env

test: lint unit live ## run every test: vet, lint, unit tests, and the live ones on this machine's engine

unit: ## run the tests that need no engine, and list those that do
	go generate ./catalog # docs/services.md follows the catalog
	go test -race ./...
	cd apps/reference && go test -race ./...
	@cd test && go test

live: ## run the tests that need an engine; RUN=TestDevStack runs the one of that name
	go test -tags live -count=1 -p 1 -parallel 3 -timeout 60m -v $(if $(RUN),-run '^$(RUN)$$') ./test/... ./tools

live-official: ## run every stack and the registry's tests through Pulumi's own docker plugin, which must be on this machine; RUN= as for live
	go test -tags official -count=1 -p 1 -parallel 3 -timeout 60m -v $(if $(RUN),-run '^$(RUN)$$') ./test

lint:
	tools/build golangci-lint
	tools/build actionlint
	go vet -tags live,official ./...
	tools/bin/actionlint
	tools/bin/golangci-lint run ./...
	cd apps/reference && go vet ./... && ../../tools/bin/golangci-lint run ./...
	tools/vulncheck
