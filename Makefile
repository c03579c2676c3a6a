# make demo [DIALECT=relax|relay]   the main job, from nothing
# make test                         lint, types and the whole suite, in both environments
# make env-relax, make env-relay    one environment, as the tests use it
# make env-peers                    the environment of the runtimes that benchmarks compare with
DIALECT ?= relax
export PYTHON

.PHONY: help demo demo-env test lint types test-relax test-relay env-relax env-relay env-peers clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: demo-env
	@.venv/$(DIALECT)/bin/python scripts/demo.py

demo-env:
	@case "$(DIALECT)" in relax|relay) ;; *) echo "make demo: DIALECT is '$(DIALECT)', expected relax or relay" >&2; exit 2;; esac
	@scripts/setup_env.sh $(DIALECT) $(DIALECT) 2

# Two suites side by side, each of whose TVM would pin its threads to the same cores: one and a half times as slow.
test: export TVM_BIND_THREADS = 0
test:
	@$(MAKE) -j2 lint types env-relay
	@$(MAKE) -j2 test-relax test-relay

lint: env-relax
	.venv/relax/bin/ruff check .
	.venv/relax/bin/ruff format --check .

types: env-relax
	.venv/relax/bin/mypy

test-relax: env-relax
	.venv/relax/bin/pytest

test-relay: env-relay
	.venv/relay/bin/pytest -m "not no_tvm"

env-relax:
	@scripts/setup_env.sh relax relax,tensorflow,report,dev 5

env-relay:
	@scripts/setup_env.sh relay relay,tensorflow,report,dev 5

env-peers:
	@scripts/setup_env.sh peers peers 6

clean:
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
