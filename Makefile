# make run, make test: the two commands; the rest is below them.
#
#   TORCH_INDEX  where pip finds torch. Empty: the package index's own build (Linux: with CUDA).
#                CPU only: TORCH_INDEX=https://download.pytorch.org/whl/cpu
#   EXTRAS       e.g. EXTRAS=[cuda13] adds CuPy for CUDA 13

PYTHON ?= python3
TORCH_INDEX ?=
EXTRAS ?=
# The scripts beside it name it in their first line, which holds no path as it is.
PY := .venv/bin/python
READY := .venv/.ready

.PHONY: env run run-all bench reference figures notebooks docs keys test test-peers test-cluster faults fuzz load sanitize lint clean lock

run: env
	$(PY) -m snakemake --cores all
	$(PY) -m snakemake --report results/default/report.html

env: $(READY)

$(READY): envs/torch.txt envs/requirements.lock pyproject.toml setup.py $(wildcard src/lrqmm/fused/*.cpp src/lrqmm/fused/*.h)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -c 'import os, sys; here = os.getcwd(); sys.exit(not set(":$${}").isdisjoint(here) and \
		f"This folder is {here}; allowed for an environment: a path without : $$ {{ }}")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --disable-pip-version-check --quiet --require-hashes --no-deps -r envs/requirements.lock
	$(PY) -m pip install --disable-pip-version-check --quiet -r envs/torch.txt \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	$(PY) -m pip install --disable-pip-version-check --quiet --no-deps --editable .
	$(if $(EXTRAS),$(PY) -m pip install --disable-pip-version-check --editable ".$(EXTRAS)")
	touch $@

figures: env
	$(PY) -m snakemake figures --cores all

notebooks: env
	$(PY) -m snakemake notebooks --cores all

# The documentation: docs/_build/index.html, to open from disk.
docs: env
	$(PY) -m sphinx --quiet --fail-on-warning -b html docs docs/_build

# The tables of keys in config/README.md, from the source.
keys: env
	$(PY) docs/configuration.py

# Every study whose data is packaged: some hours on 2 cores.
run-all: run
	for study in rivals workloads workloads_networks networks perplexity perplexity_groups compositions bench; do \
	    $(PY) -m snakemake --cores all --configfile config/$$study.yaml || exit 1; done

# Times beside SGEMM and direct, with intervals; for an idle machine.
bench: env
	$(PY) -m snakemake --cores all --configfile config/bench.yaml
	$(PY) -c 'from lrqmm.run.read import read_run; from lrqmm.figures import table5_speed; \
		print(table5_speed.text(read_run("results/bench")))'

# The study, or that of CONFIG, from a clean checkout on an idle machine, as results/reference/NAME.
NAME ?= $(error say which machine: make reference NAME=cpu-2core)
reference: env
	$(PY) -m snakemake --cores all $(if $(CONFIG),--configfile $(CONFIG)) --config run=results/$(NAME)
	$(PY) -m lrqmm keep results/$(NAME) results/reference/$(NAME)

test: env lint
	$(PY) -m pytest -n auto --dist loadfile

# The products of other libraries, and ours beside them: installs the extra `peers` (Python 3.11).
test-peers: env
	$(PY) -m pip install --disable-pip-version-check --quiet --require-hashes --no-deps -r envs/peers.lock
	$(PY) -m pytest tests/test_peers.py tests/test_peers_codes.py tests/test_advice.py

# On a real Slurm of one node, which it starts: as root, with Debian's slurm-wlm and munge.
test-cluster: env
	$(PY) -m pytest -m cluster -s

# Faults, injected: a table of what was injected, what the user saw, and what was kept.
faults: env
	$(PY) -m pytest -n auto --dist loadfile --faults tests/test_faults.py tests/test_workflow_faults.py

# What the workflow costs on top of measuring: 200 shards of 20 s, on two cores.
load: env
	$(PY) tests/load.py

# Mutated files of every kind that is read.
fuzz: env
	$(PY) tests/fuzz.py 2000

# Compiled code with every access checked, over the shapes of the tests.
sanitize: env
	$(PY) tests/sanitize.py

lint: env
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m bandit --quiet --recursive --configfile pyproject.toml src workflow
	$(PY) -m snakefmt --check Snakefile workflow
	$(PY) -m snakemake --lint

# Everything that the workflow made, but for the reference runs; .venv stays.
clean:
	rm -rf results/default results/inputs docs/_build docs/generated .snakemake build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Pin again, with hashes: the newest versions that pyproject.toml allows, for Python 3.11 and later.
# torch and what its CUDA builds bring along stay outside: their builds differ.
lock: env
	$(PY) -m pip install --quiet uv
	$(PY) -m uv pip compile --quiet --universal --python-version 3.11 --extra bench --extra notebooks --extra test --extra docs \
		--extra cluster --constraint envs/torch.txt --generate-hashes --no-annotate --no-header pyproject.toml \
		| awk '/^[^ ]/ {keep = $$0 !~ /^(torch|nvidia-|cuda-)/} keep' > envs/requirements.lock.part
	mv envs/requirements.lock.part envs/requirements.lock
	$(PY) -m uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --extra peers \
		--constraint envs/torch.txt --constraint envs/requirements.lock --generate-hashes --no-annotate --no-header pyproject.toml \
		| awk 'NR == FNR {if (/^[^ ]/) {split($$0, it, "=="); known[it[1]] = 1}; next} \
			/^[^ ]/ {split($$0, it, "=="); keep = !(it[1] in known) && $$0 !~ /^(torch=|nvidia-|cuda-)/} keep' \
			envs/requirements.lock - > envs/peers.lock.part
	mv envs/peers.lock.part envs/peers.lock
