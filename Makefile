# Every command that people and CI run. Each recipe does its own set-up.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

TARGET := $(or $(CARGO_TARGET_DIR),target)
# Everything is linked statically, so that images hold the binaries that are tested here. With a target of its own, build
# scripts and macros are built as usual.
HOST = $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
BIN = $(TARGET)/$(HOST)/release
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lockgate/tools
export PATH := $(PATH):$(CACHE)/bin

.PHONY: help demo test property lint fmt golden docs bench bench-check bench-growth bench-peers profile soak strict h2spec fuzz attacks sbom e2e conformance e2e-load e2e-scale cluster-up cluster-shell cluster-down cluster-cleanup cluster-programs image images advisories release

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: release ## run Lockgate on a folder of manifests and show what it does (KEEP=1 keeps it running)
	@.ci/setup demo
	@bench/demo/demo.sh $(BIN)

test: ## unit, table, property, golden and feature tests, and a short soak
	@.ci/setup build
	@.ci/setup nginx
	@.ci/setup h2spec
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
	@.ci/setup nginx
	LOCKGATE_WRITE_DOCS=1 cargo test -p controller --test documents
	LOCKGATE_WRITE_DOCS=1 cargo test -p crds --test definitions
	LOCKGATE_WRITE_DOCS=1 cargo test -p controller --test features nginx_and_lockgate
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

strict: ## raw requests to Lockgate, HAProxy and nginx; writes docs/strict-http.md
	@.ci/setup build
	@.ci/setup nginx
	@.ci/setup haproxy
	LOCKGATE_WRITE_STRICT=1 cargo test -p gateway --test proxy_direct strict::

h2spec: ## the public suite for HTTP/2, on both ports and both engines; writes docs/h2spec.md
	@.ci/setup build
	@.ci/setup h2spec
	LOCKGATE_WRITE_DOCS=1 cargo test -p gateway --test proxy_direct h2spec::
	cargo test -p gateway --test proxy h2spec::

# Needs no more than the usual compiler: what coverage needs is in every LLVM.
FUZZ_FLAGS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions
FUZZ_TARGETS = $(notdir $(wildcard fuzz/corpus/*))
SECONDS_EACH = 60
fuzz: ## look for bytes that break what reads them (FUZZ="http1 hosts" SECONDS_EACH=600); what is found is in target/fuzz
	@.ci/setup build
	RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --locked --release --target $(HOST) --target-dir $(TARGET)/fuzz -p fuzz --features libfuzzer
	@for target in $(or $(FUZZ),$(FUZZ_TARGETS)); do \
	  echo "== $$target"; mkdir -p $(TARGET)/fuzz/corpus/$$target $(TARGET)/fuzz/found; \
	  LOCKGATE_FUZZ_TARGET=$$target $(TARGET)/fuzz/$(HOST)/release/fuzz -max_total_time=$(SECONDS_EACH) -max_len=65536 -timeout=30 \
	    -rss_limit_mb=4096 -print_final_stats=1 -artifact_prefix=$(TARGET)/fuzz/found/$$target- \
	    $(TARGET)/fuzz/corpus/$$target fuzz/corpus/$$target 2>&1 | tail -n 15; \
	done

bench: release ## micro benchmarks: lookup, compile, balancing, memory
	cargo bench -p table -p balance
	$(BIN)/scale

# PEERS="--quick" shows that it works; PEERS="--case http1,h2-100 --peer lockgate,haproxy --rounds 9" measures a part.
# The yardstick is built alone, so that Lockgate's libraries have the features that they are shipped with.
bench-peers: release ## CPU per request, latency, memory beside HAProxy, nginx, Envoy, Traefik (PEERS=options)
	@.ci/setup bench
	config/dist.sh
	config/dist.sh floor
	$(BIN)/peers --lockgate $(TARGET)/$(HOST)/dist/lockgate --floor $(TARGET)/$(HOST)/dist/floor --packages $(CACHE)/peers \
	  --results bench/results --date $$(date -u +%Y-%m-%d) $(PEERS)

profile: release ## config/lockgate.profdata: what is run how often, for the binary that is shipped
	@.ci/setup bench
	PEERS=$(BIN)/peers PACKAGES=$(CACHE)/peers config/profile.sh

bench-check: release ## instructions per lookup, compile and request against bench/instructions.json (CHECK=--write)
	@.ci/setup check
	$(BIN)/instructions --lockgate $(BIN)/lockgate --kept bench/instructions.json $(CHECK)

soak: release ## 1,000,000 requests while everything around them changes; writes bench/results (SOAK=options)
	$(BIN)/soak --lockgate $(BIN)/lockgate --page bench/results/$$(date -u +%F)-soak.md --date $$(date -u +%F) $(SOAK)

# ATTACKS="--quick" shows that it works; ATTACKS="--attack rapid-reset,pings --peer lockgate" does a part.
attacks: release ## hostile clients against Lockgate, HAProxy and nginx; writes bench/results (ATTACKS=options)
	@.ci/setup bench
	$(BIN)/attacks --lockgate $(BIN)/lockgate --packages $(CACHE)/peers --results bench/results \
	  --date $$(date -u +%F) $(ATTACKS)

# What the tests have counted is kept where all of them are run.
e2e: export E2E_PAGE = $(if $(TEST),,$(CURDIR)/bench/results/$(shell date -u +%F)-e2e.md)
e2e: release ## against a real API server, then on two nodes (TEST=part of a name, KUBECONFIG=your cluster)
	@.ci/setup e2e
	$(if $(TEST),,@printf '# End-to-end tests, %s\n\nWritten by `make e2e`: what its tests have counted.\n\n' "$$(date -u +%F)" >$(E2E_PAGE))
	$(if $(KUBECONFIG),,e2e/cluster/run.sh api $(BIN)/lockgate $(TEST))
	e2e/images.sh $(TARGET) $(HOST)
	E2E_LOAD=$(abspath $(BIN)/load) e2e/cluster/run.sh test $(TARGET)/images $(TEST)

e2e-scale: release ## 2,000 Ingresses, 1,000 Secrets and 10,000 endpoints on two nodes; figures to bench/results
	@.ci/setup e2e
	e2e/images.sh $(TARGET) $(HOST)
	E2E_LOAD=$(abspath $(BIN)/load) E2E_SCALE=full E2E_SCALE_REPORT=$(CURDIR)/bench/results/$$(date +%F)-cluster-scale.md \
	  e2e/cluster/run.sh test $(TARGET)/images scale::

bench-growth: release ## start, memory, changes with up to 30,000 Ingresses, beside Traefik (GROWTH=options)
	@.ci/setup e2e
	@.ci/setup bench
	e2e/cluster/run.sh api $(BIN)/lockgate --command $(abspath $(BIN))/e2e-growth --traefik $(CACHE)/peers/bin/traefik \
	  --page $(CURDIR)/bench/results/$$(date -u +%F)-growth.md --date $$(date -u +%F) $(GROWTH)

conformance: images ## the public suite for Ingress controllers; writes docs/conformance.md
	@.ci/setup e2e
	LOCKGATE_WRITE_DOCS=1 e2e/cluster/run.sh test $(TARGET)/images conformance::

e2e-load: images ## wrk and h2load on a cluster, beside Traefik; writes bench/results (KUBECONFIG=your cluster)
	@.ci/setup e2e
	@.ci/setup load
	e2e/load.sh $(TARGET) $(HOST)

cluster-up: release ## start a Kubernetes with two nodes and Lockgate, and leave it running (CLUSTER=name for another one)
	@.ci/setup e2e
	e2e/images.sh $(TARGET) $(HOST)
	@e2e/cluster/run.sh up $(TARGET)/images

cluster-shell: ## a shell as a client of that cluster
	@e2e/cluster/run.sh shell

cluster-down: ## end it
	@e2e/cluster/run.sh down

cluster-cleanup: images ## prove that nothing of a cluster is left, whichever part of it is killed
	@.ci/setup e2e
	cargo build -p e2e --bin e2e-cluster
	E2E_CLUSTER=$(TARGET)/debug/e2e-cluster e2e/cluster/cleanup.sh $(TARGET)/images

cluster-programs: ## build the programs of the clusters from their Go modules
	@.ci/setup e2e
	e2e/cluster/programs.sh

images: release ## the images that the cluster of the end-to-end tests runs
	@.ci/setup images
	e2e/images.sh $(TARGET) $(HOST)

release: ## the one release build: demo, soak, end-to-end tests and their images use it
	@.ci/setup build
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target $(HOST) \
	  -p controller -p bench -p e2e --bins

sbom: ## what the binary is made of, as CycloneDX: target/lockgate.cdx.json
	@.ci/setup build
	@.ci/setup sbom
	config/sbom.sh $(TARGET)/lockgate.cdx.json

image: sbom ## the container image, with buildah, podman or docker, and what is in it beside it
	@.ci/setup build
	config/image.sh
