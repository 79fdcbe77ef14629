# Two commands do everything on a machine with Python, git and make: `make demo` and `make test`.
PYTHON ?= python3
# $(PYTHON) is never the one in the environment that it is to make
OUTSIDE := $(subst $(CURDIR)/.venv/bin:,,$(PATH))
export PATH := $(CURDIR)/.venv/bin:$(PATH)
UV := uv==0.13.8
COMPILE := uv pip compile --quiet --universal --no-emit-index-url
FITS := import pip, sys; sys.exit(sys.version_info < (3, 11))
NEWER := import sys; sys.exit(sys.version_info < (3, 11) and "make: this Python is %d.%d.%d, 3.11 or newer is needed: \
  make $(MAKECMDGOALS) PYTHON=python3.13" % sys.version_info[:3])

# An environment is made anew where its Python is too old, incomplete or gone.
define environment
	@$(1)/bin/python -c '$(FITS)' 2>/dev/null || { PATH="$(OUTSIDE)" $(PYTHON) -c '$(NEWER)' && rm -rf $(1) && \
	PATH="$(OUTSIDE)" $(PYTHON) -m venv $(1); }
endef
$(foreach env,.venv .venv-app .venv-bench,\
  $(shell test ! -e $(env)/ready || $(env)/bin/python -c '$(FITS)' 2>/dev/null || rm -f $(env)/ready))

.DEFAULT_GOAL := help
.PHONY: help repository setup demo test test-ci test-slow test-browser app bench lint requirements clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: .venv/ready  ## make .venv with everything pinned in requirements.txt, compiled

repository:
	@git rev-parse --git-dir >/dev/null || { \
	echo "make: DVC needs a git repository that git can read: in a folder from a zip, git init" >&2; exit 1; }

.venv/ready: requirements.txt | repository
	$(call environment,.venv)
	.venv/bin/python -m pip install --quiet --disable-pip-version-check $(UV)
	.venv/bin/uv pip sync --quiet --python .venv/bin/python --compile-bytecode requirements.txt
	touch $@

demo: setup  ## the whole recipe on the default pictures, then the metrics after each step
	dvc repro
	python -m stages.show

test: setup  ## all tests but the slow ones
	python -m pytest -q -m "not slow" -n 2 --dist loadfile

test-ci: setup  ## the slow tests but those that need all cores or ten minutes: workers, S3, what a kill leaves, ...
	uv pip install --quiet --python .venv/bin/python -r requirements-s3.txt
	python -m pytest -q -m "slow and not very_slow" -n 2 --dist loadfile --durations 30

test-slow: setup  ## all slow tests, one after the other: also five folds and a hundred kills
	uv pip install --quiet --python .venv/bin/python -r requirements-s3.txt
	python -m pytest -q -m slow

app: setup .venv-app/ready  ## a page on loopback to try the exported model: `dvc repro export` makes it
	.venv-app/bin/python -m app $(APP)

test-browser: setup .venv-app/ready  ## the app and the report in Chromium, which is installed where there is none
	command -v chromium || command -v google-chrome || .venv-app/bin/playwright install chromium
	.venv-app/bin/python -m pytest -q app/tests

.venv-app/ready: app/requirements.txt
	$(call environment,.venv-app)
	.venv/bin/uv pip sync --quiet --python .venv-app/bin/python --compile-bytecode app/requirements.txt
	touch $@

bench: setup .venv-bench/ready  ## ratios against limits, full reruns and fastai, into bench/results.json and docs/results.md
	python -m bench $(BENCH)

.venv-bench/ready: bench/requirements.txt
	$(call environment,.venv-bench)
	.venv/bin/uv pip sync --quiet --python .venv-bench/bin/python --compile-bytecode bench/requirements.txt
	touch $@

lint: setup  ## style, types, and that imports go one way
	ruff check .
	ruff format --check .
	mypy
	lint-imports

requirements: setup  ## compile all requirements*.txt
	$(COMPILE) --extra demo --extra dev pyproject.toml -o requirements.txt
	$(COMPILE) --extra s3 --extra moto -c requirements.txt pyproject.toml -o requirements-s3.txt
	$(COMPILE) --python-version 3.11 -c requirements.txt bench/requirements.in -o bench/requirements.txt
	$(COMPILE) --python-version 3.11 app/requirements.in -o app/requirements.txt

clean:  ## remove the environment, the outputs of all stages and what is remembered (the DVC cache stays)
	rm -rf .venv .venv-app .venv-bench .unfreeze .mypy_cache .pytest_cache .ruff_cache data/.*.tmp
	git clean -qfdX $(patsubst stages/%.py,data/%,$(wildcard stages/*.py)) data/raw/elpv
