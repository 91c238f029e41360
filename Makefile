# Every command that people and CI run. Each recipe does its own set-up.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

TARGET := $(or $(CARGO_TARGET_DIR),target)
LOCKGATE := $(TARGET)/release/lockgate
export PATH := $(PATH):$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lockgate/tools/bin

.PHONY: help demo test property lint fmt golden docs bench bench-peers soak e2e cluster-programs image advisories release

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: release ## run Lockgate on a folder of manifests and show what it does (KEEP=1 keeps it running)
	@.ci/setup demo
	@bench/demo/demo.sh $(TARGET)/release

test: ## unit, table, property, golden and feature tests, and a short soak
	@.ci/setup build
	cargo test
	cargo build --bins --tests
	$(TARGET)/debug/soak --lockgate $(TARGET)/debug/lockgate --short

lint: ## formatting, clippy, layering, licences, documents
	@.ci/setup lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo deny --log-level error check bans licenses sources
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

advisories: ## known vulnerabilities in dependencies (needs the advisory database)
	@.ci/setup lint
	cargo deny check advisories

fmt: ## format the code
	cargo fmt --all

property: ## the property tests with 10,000 random edit sequences each
	@.ci/setup build
	LOCKGATE_PROPTEST_CASES=10000 cargo test --release -p table -p translate --test properties --test incremental

golden: ## rewrite golden outputs; review the difference
	INSTA_UPDATE=always cargo test -p translate -p table

docs: ## write the generated pages of docs/, and the rustdoc pages
	@.ci/setup build
	LOCKGATE_WRITE_DOCS=1 cargo test -p controller --test documents
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

bench: ## micro benchmarks: lookup, compile, memory
	@.ci/setup build
	cargo bench -p table
	cargo run --release -p bench --bin scale

bench-peers: ## requests per CPU second beside HAProxy
	@.ci/setup bench
	cargo build --profile dist -p controller
	cargo build --release -p bench
	bench/peers.sh $(TARGET)

soak: release ## 1,000,000 requests while tables are swapped and certificates rotate
	$(TARGET)/release/soak --lockgate $(LOCKGATE)

e2e: release ## against a real etcd and kube-apiserver
	@.ci/setup e2e
	e2e/cluster/run.sh $(LOCKGATE)

cluster-programs: ## build etcd, kube-apiserver and kubectl from their Go modules
	@.ci/setup e2e
	e2e/cluster/programs.sh

release:
	@.ci/setup build
	cargo build --release -p controller -p bench

image: ## the container image, with buildah, podman or docker
	@.ci/setup build
	config/image.sh
