# make run             set up .venv if needed, then run the workflow on the embedded default
# make test            set up .venv if needed, then run the tests
# make test-faults     set up .venv if needed, then run the fault cases and print their table
# make test-peers      set up .venv-peers if needed, then run the tests against published tools
# make test-envs       the tests of the environments in envs/, with packages from PyPI
# make test-cluster    run the tests on a Slurm of one node, where there are root and its packages
# make proofs          hours of tests that show more than those above do each time (docs/proofs.md)
# make parity          set up .venv-peers if needed, then train here and in scvi-tools, side by side
# make bench-schedule  compare learning rates and minibatches by the likelihood of held-out cells
# make bench-training  set up .venv-peers if needed, then time training here beside scvi-tools
# make bench-steps     set up .venv if needed, then see where the time of a training step goes
# make bench-run       set up .venv if needed, then see where the time of a run goes
# make bench-scaling   set up .venv if needed, then time every stage on 10k to 300k simulated cells
# make bench-million   set up .venv if needed, then time the chain on a million simulated cells
# make bench-loading   measure how fast minibatches come from disk, and the memory that takes
# make check           format, lint, and Snakemake's own lint
# make lock            resolve requirements.in and requirements-peers.in into the locks (needs uv)
# make clean           delete results (never .venv, .venv-peers or resources)

SHELL := /bin/bash
CORES ?= all
# the first python that runs and is recent enough
RECENT = import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
  $$p -c '$(RECENT)' 2>/dev/null && echo $$p && break; done)
# uv reads another variable than pip for folders with wheels
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

# where the tests of the environments keep what they build
test-envs: export SCLATENT_ENVS ?= .cache/envs

.PHONY: run test test-faults test-peers test-envs test-cluster proofs parity bench-schedule bench-training bench-steps bench-loading bench-run bench-scaling bench-million check format lock clean

run: .venv/ready
	@echo "sclatent: running the workflow on the embedded default; results and report go to results/"
	@.venv/bin/snakemake --cores $(CORES)

test: .venv/ready
	@echo "sclatent: running the tests"
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

test-faults: .venv/ready
	@echo "sclatent: running the fault cases"
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q tests/faults $(ARGS)

test-peers: .venv-peers/ready
	@echo "sclatent: running the tests against published tools"
	@OMP_NUM_THREADS=1 TRITON_INTERPRET=1 .venv-peers/bin/python -m pytest -n 2 --dist worksteal \
	  tests/peers tests/unit/kernels/cuda $(ARGS)

test-envs: .venv/ready
	@echo "sclatent: running the workflow in environments built from PyPI (3 GB in $(SCLATENT_ENVS))"
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest tests/envs $(ARGS)

test-cluster: .venv/ready
	@echo "sclatent: running the tests on a Slurm of one node"
	@tests/cluster/slurm.sh start || true
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist worksteal -rs tests/cluster $(ARGS); \
	  status=$$?; tests/cluster/slurm.sh stop; exit $$status

proofs:
	@SCLATENT_PROOFS=1 $(MAKE) test-faults ARGS="-m chaos -s"
	@SCLATENT_PROOFS=1 $(MAKE) test-cluster ARGS="-k through_sbatch"
	@$(MAKE) test-envs
	@$(MAKE) parity

parity: .venv-peers/ready
	@echo "sclatent: training scVI and scANVI here and in scvi-tools on the same cells"
	@PYTHONPATH=scripts OMP_NUM_THREADS=1 .venv-peers/bin/python -W ignore benchmarks/parity.py \
	  --docs docs/parity.md $(ARGS)

bench-schedule: .venv/ready
	@PYTHONPATH=scripts OMP_NUM_THREADS=1 .venv/bin/python -W ignore benchmarks/schedule.py $(ARGS)

bench-training: .venv-peers/ready
	@echo "sclatent: timing the training here and in scvi-tools; this takes hours, and a quiet machine"
	@PYTHONPATH=scripts .venv-peers/bin/python -W ignore benchmarks/training.py $(ARGS)

bench-steps: .venv/ready
	@PYTHONPATH=scripts OMP_NUM_THREADS=1 .venv/bin/python -W ignore benchmarks/steps.py $(ARGS)

bench-run: .venv/ready
	@echo "sclatent: timing a whole run; this takes a quiet machine"
	@PYTHONPATH=scripts .venv/bin/python -W ignore benchmarks/run.py $(ARGS)

bench-scaling: .venv/ready
	@echo "sclatent: timing the workflow on 10k to 300k simulated cells; this takes a quiet machine"
	@PYTHONPATH=scripts .venv/bin/python -W ignore benchmarks/scaling.py $(ARGS)

bench-million: .venv/ready
	@echo "sclatent: timing the workflow on a million simulated cells; this takes a quiet machine"
	@PYTHONPATH=scripts .venv/bin/python -W ignore benchmarks/million.py $(ARGS)

bench-loading: .venv/ready
	@OMP_NUM_THREADS=1 .venv/bin/python benchmarks/loading.py $(ARGS)

check: .venv/ready
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/snakefmt --check Snakefile workflow
	.venv/bin/snakemake --lint

format: .venv/ready
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .
	.venv/bin/snakefmt Snakefile workflow

# the old lock names torch without its build, which would rule out a wheel for the CPU: choose anew
COMPILE = uv pip compile --quiet --python-version 3.11 --no-emit-find-links \
  --upgrade-package torch --custom-compile-command "make lock"

# The first lock says who needs what: from that the rules know their packages. The lock of the peers
# keeps only what the first one does not pin.
lock:
	$(COMPILE) requirements.in -o requirements.lock
	$(COMPILE) --no-annotate -c requirements.lock requirements-peers.in -o requirements-peers.lock
	sed -i "$$(sed -n 's/^\([^#=]*==\).*/\/^\1\/d/p' requirements.lock)" requirements-peers.lock
	sed -i 's/^torch==\([0-9.]*\)+.*/torch==\1/' requirements.lock

clean:
	rm -rf results/*/ results/{report.html,verdict.txt,config.yaml,ro-crate-metadata.json}

# The .pth lets Snakemake find our plugin, which says what is wrong with a config file.
.venv/ready: requirements.lock
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(RECENT)' \
	  || { echo "sclatent needs Python 3.11 or later; set PYTHON=/path/to/python"; exit 1; }
	@echo "sclatent: installing the pinned packages into $(@D) (once, about 2 GB)"
	@rm -rf $(@D)
	@if command -v uv >/dev/null; then \
	  uv venv --quiet --python $(PYTHON) $(@D) && \
	  uv pip install --quiet --compile-bytecode --python $(@D)/bin/python -r requirements.lock; \
	else \
	  $(PYTHON) -m venv $(@D) && \
	  $(@D)/bin/python -m pip install -qq --disable-pip-version-check -r requirements.lock; \
	fi
	@echo ../../../../workflow/plugin >"$$(echo $(@D)/lib/python*/site-packages)/sclatent.pth"
	@touch $@

# on top of .venv, whose packages it sees: the lock of the peers holds only what they need beside these
.venv-peers/ready: .venv/ready requirements-peers.lock
	@echo "sclatent: installing the published tools into $(@D) (once)"
	@rm -rf $(@D)
	@.venv/bin/python -m venv $(@D)
	@for folder in .venv/lib/python*/site-packages workflow/plugin; do echo ../../../../$$folder; done \
	  >"$$(echo $(@D)/lib/python*/site-packages)/sclatent.pth"
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check --no-deps -r requirements-peers.lock
	@touch $@
