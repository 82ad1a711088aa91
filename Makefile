# The everyday commands for a stack. Each is a plain pulumi or platform command that
# first installs what a clean machine lacks.
STACK ?= dev
ARGS  ?=
PASS   = $(if $(ARGS),-- $(ARGS))

# The same flags everywhere, so that a package is compiled once for all programs and all clones on a machine. Without
# debug information the compiler takes a sixth less time.
export GOFLAGS     := $(shell go env GOFLAGS 2>/dev/null) -trimpath -gcflags=all=-dwarf=false
export CGO_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help init up preview preview-all refresh down plan doctor status env platform test unit live live-official bench lint

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  STACK=$(STACK) names the stack: base, dev, workers, mtls, oauth2, manual, observability; ARGS= goes to pulumi"

platform: bin/platform
# It builds itself again when a source has changed. An older one, which does not, is older than this file.
bin/platform: Makefile
	@echo "building bin/platform, once (about a minute)" >&2
	@GOGC=off GOMEMLIMIT=1GiB go build -ldflags='-s -w' -o bin/platform ./cmd/platform # tools/compile says why

init: platform ## install and generate what the stack needs on this machine
	@bin/platform init -s $(STACK)

up: platform ## start the stack and wait until every service is healthy
	@bin/platform up -s $(STACK) $(PASS)

preview: platform ## show what an up would change
	@bin/platform preview -s $(STACK) $(PASS)

preview-all: platform ## preview every stack as if it did not exist yet, as a pull request does; leaves nothing behind
	@bin/platform preview-all $(ARGS)

refresh: platform ## record in the state what changed outside of pulumi
	@bin/platform refresh -s $(STACK) $(PASS)

down: platform ## take the stack down; its volumes and their data stay
	@bin/platform down -s $(STACK) $(PASS)

plan: platform ## print what the stack consists of
	@bin/platform plan -s $(STACK) $(ARGS)

doctor: platform ## list everything that would keep the stack from coming up
	@bin/platform doctor -s $(STACK)

status: platform ## show the state of the stack's containers
	@bin/platform status -s $(STACK)

env: platform ## print the environment for plain pulumi commands: eval "$$(make -s env)"
	@bin/platform env

test: lint unit live ## run every test: vet, lint, unit tests, and the live ones on this machine's engine

unit: ## run the tests that need no engine, list those that need one, and update the generated docs
	go generate ./catalog ./cmd/platform # writes docs/services.md, commands.md and settings.md
	CGO_ENABLED=1 go test -race ./...
	cd apps/reference && CGO_ENABLED=1 go test -race ./...
	@cd test && go test

# They share the machine with each other, so one that fails runs once more, alone and as a whole: its steps follow
# from each other. The summary lists both runs.
LIVE = tools/build gotestsum && tools/bin/gotestsum --format standard-verbose --rerun-fails=1 --rerun-fails-run-root-test

live: ## run the tests that need an engine; RUN=TestDevStack runs only the test of that name
	$(LIVE) --packages './test/... ./tools' -- -tags live -count=1 -p 1 -parallel 3 -timeout 60m $(if $(RUN),-run '^$(RUN)$$')

bench: platform ## compare the dev stack with Docker Compose, and write docs/performance.md; ARGS= for a short form: -rounds 1
	go run ./bench $(ARGS)

live-official: ## run every stack and the registry's tests through Pulumi's own docker plugin, which must be installed; RUN= as for live
	$(LIVE) --packages ./test -- -tags official -count=1 -p 1 -parallel 3 -timeout 60m $(if $(RUN),-run '^$(RUN)$$')

lint:
	tools/build golangci-lint
	tools/build actionlint
	go vet -tags live,official ./...
	tools/bin/actionlint
	tools/bin/golangci-lint run ./...
	cd apps/reference && go vet ./... && ../../tools/bin/golangci-lint run ./...
	tools/vulncheck
