# Few commands, the same for people and for CI. Each sets up what it needs.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

.PHONY: help
help: ## list the commands
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-15s %s\n", $$1, $$2 }'

.PHONY: setup
setup: ## bring npm packages, Ray and the three programs into the repository; seconds when done
	@scripts/setup.sh

.PHONY: build
build: setup ## build the console and bin/{muster,musterd,muster-worker}

.PHONY: up
up: setup ## start the local stack, print the console's address and sign-in; keeps running
	@exec bin/musterd up

.PHONY: tour
tour: setup ## the same stack, headless: book, run a Ray job, release, pay out, reconcile; the last line is JSON
	@exec bin/musterd tour

.PHONY: test
test: setup ## everything: Go with the race detector, local chain, console, browser, end to end
	@scripts/test.sh

.PHONY: test-%
test-%: setup ## one suite: test-go, test-localnet, test-console, test-pages, test-stack, test-e2e
	@scripts/test.sh $*

.PHONY: chaos
chaos: setup ## crashes at every step of settlement, through faulty RPC providers; prints its seed (MUSTER_SEED=n runs it again)
	@scripts/chaos.sh

.PHONY: lint
lint: setup ## static checks, and that generated code is up to date
	@scripts/lint.sh

.PHONY: generate
generate: setup ## write queries, protocol, OpenAPI document and console types anew
	@scripts/generate.sh

.PHONY: bench
bench: bench-ready bench-placement bench-fleet bench-book bench-ledger bench-payouts bench-reconcile bench-chaos ## all benchmarks: one logfmt line a figure, and docs/benchmarks.md

.PHONY: bench-ready
bench-ready: setup ## a booked cluster against the same Ray started by hand
	@python3 scripts/bench.py ready

.PHONY: bench-placement
bench-placement: ## gangs beside kube-scheduler, Nomad and a scan; its first build takes minutes
	@go -C bench vet -mod=mod ./...
	@go -C bench test -mod=mod ./...
	@python3 scripts/bench.py placement

.PHONY: bench-fleet
bench-fleet: ## what the heartbeats of a large fleet cost
	@python3 scripts/bench.py fleet

.PHONY: bench-book
bench-book: ## durable bookings a second, and the death of a leader under them
	@python3 scripts/bench.py book

.PHONY: bench-ledger
bench-ledger: ## durable transfers a second; beside pgledger, if MUSTER_PGLEDGER_DIR names a checkout of it
	@python3 scripts/bench.py ledger

.PHONY: bench-payouts
bench-payouts: setup ## what a payout costs on the chain and in CPU time, and a run of 100,000 payees
	@python3 scripts/bench.py payouts

.PHONY: bench-reconcile
bench-reconcile: ## a million chain transfers against a million of the ledger's
	@python3 scripts/bench.py reconcile

.PHONY: bench-chaos
bench-chaos: setup ## make chaos, and its figures into docs/benchmarks.md
	@python3 scripts/bench.py chaos

.PHONY: testdb
testdb: ## start the PostgreSQL server that tests share; it keeps running
	@scripts/testdb.sh start

.PHONY: testdb-stop
testdb-stop: ## stop it
	@scripts/testdb.sh stop

.PHONY: clean
clean: testdb-stop ## remove what builds and runs left behind, the local stack's data included
	rm -rf .cache bin var web/node_modules deploy/localnet/node_modules
	find web/dist -mindepth 1 ! -name .gitkeep -delete
