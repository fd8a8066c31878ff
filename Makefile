# Each target sets itself up in .venv and can be run again. PYTHON chooses the interpreter that .venv is made with.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
DEMO := runs/demo
FFMPEG := $(CURDIR)/.venv/ffmpeg
NATIVE := $(wildcard csrc/*.* csrc/*/*.*)

.PHONY: help setup demo test test-all docs bench bench-report gpu gpu-build gpu-tests gpu-bench gpu-train gpu-tune gpu-sanitize fuzz kill-test reliability learning scaling shards-bench decoding-bench parity wheel-container cuda-resources triton-resources clean

help:
	@echo "make demo      synthetic narrated videos, a tiny model trained on them, its held-out figures, report.html, and its"
	@echo "               answers and findings in videos that it has not seen"
	@echo "make test      linters, type checker and all quick tests"
	@echo "make test-all  the same with the slow tests"
	@echo "make bench     the benchmarks that need no GPU; SAVE=1 keeps the results of this machine, make bench-report shows them"
	@echo "make docs      updates docs/api.md and docs/configuration.md from docstrings and settings"
	@echo "make fuzz      random problems for the native ops under AddressSanitizer and UBSan, and damaged transcripts,"
	@echo "               videos and shards; FUZZ_SECONDS (60) for each, FUZZ_SEED"
	@echo "make kill-test kills training runs with SIGKILL at KILLS (24) random instants, resumes them and compares every loss"
	@echo "               with runs that were never killed; KILL_SEED, OUT"
	@echo "make reliability  does to small runs what ends long ones, and writes docs/reliability.md (20 minutes)"
	@echo "make learning  compares pretraining objectives, what they are worth to tasks, and to real sounds in the folders"
	@echo "               ESC10 and FSDD; writes docs/learning.md (two hours; finished runs are kept in runs/learning)"
	@echo "make scaling   compares every way to share a training step with one process, and writes docs/scaling.md"
	@echo "make shards-bench  measures what shards cost to make, to keep and to train from, and writes docs/twenty_million.md"
	@echo "make decoding-bench  measures decoders against other ways to decode, and their memory over 10,000 clips"
	@echo "make gpu       on a CUDA machine: builds the CUDA ops, GPU tests, benchmarks, a short training; results in OUT."
	@echo "               Its steps: make gpu-build gpu-tests gpu-bench gpu-train; beside them gpu-tune gpu-sanitize"
	@echo "make wheel     dist/: a wheel for every Linux from glibc 2.28 on, with CPU and CUDA ops inside, and a source"
	@echo "               distribution, both checked; CUDA=0 leaves the CUDA ops out"
	@echo "make wheel-container  installs that wheel in a container without compilers and network, and runs every op;"
	@echo "               CONTAINER (docker) and IMAGE (python:3.11-slim)"
	@echo "make clean     removes .venv, builds and runs/demo"

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt constraints-gpu.txt requirements-originals.txt setup.py CMakeLists.txt $(NATIVE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Reserve needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-originals.txt
	@$(BIN)/python -m tests.helpers.torchaudio_python
	@$(BIN)/python -c 'from reserve_kernels.native import describe; print(describe())'
	@$(BIN)/python -m tests.helpers.ffmpeg_libraries $(FFMPEG)
	@$(BIN)/python -m tests.kernels.triton_versions
	@touch $@

# Its videos are those of other targets too. The mark's name says how many, so that those of other releases are made anew.
DEMO_VIDEOS := $(DEMO)/videos/.complete-174
$(DEMO_VIDEOS): | $(INSTALLED)
	@rm -rf $(DEMO)/videos
	$(BIN)/reserve demo-data $(DEMO)/videos --videos 174 --held_out 24 --seed 0
	@touch $@

demo: $(INSTALLED) $(DEMO_VIDEOS)
	@rm -rf $(DEMO)/run $(DEMO)/moments
	$(BIN)/reserve pretrain --config tiny --videos $(DEMO)/videos/train --out $(DEMO)/run
	$(BIN)/reserve evaluate $(DEMO)/run --videos $(DEMO)/videos/heldout --times_chance 3
	$(BIN)/reserve demo-ask $(DEMO)/videos/heldout --weights $(DEMO)/run --index $(DEMO)/moments

# Each process starts with half of the tests, in order, and takes over some of the other half when it is done. So most
# tests of a file, which share fixtures, run in one process.
PYTEST := OMP_NUM_THREADS=1 LD_LIBRARY_PATH=$(FFMPEG) $(BIN)/python -m pytest -q -n 2 --dist worksteal

test: $(INSTALLED) lint
	$(PYTEST) -m "not slow and not gpu"

test-all: $(INSTALLED) lint
	$(PYTEST) -m "not gpu"

.PHONY: lint
lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p build/types && ln -sfn ../../kernels build/types/reserve_kernels
	MYPYPATH=build/types $(BIN)/mypy -p reserve_kernels -p reserve -p benchmarks
	MYPYPATH=build/types:docs/generate $(BIN)/mypy docs/generate

bench: $(INSTALLED)
	LD_LIBRARY_PATH=$(FFMPEG) $(BIN)/python -m benchmarks $(if $(SAVE),--save)

# docs/api.md and docs/configuration.md, from the docstrings and the configuration's dataclasses.
docs: $(INSTALLED)
	$(BIN)/python docs/generate/generated_pages.py

# The tables and plots of docs/benchmarks.md and README.md, from benchmarks/results.
bench-report: $(INSTALLED)
	$(BIN)/python -m benchmarks.report

# No .venv: a GPU machine has its own torch, and perhaps no network.
GPU_RUN = $(PYTHON) -m benchmarks.gpu --out $(or $(OUT),build/gpu-results)
gpu:
	$(GPU_RUN)
gpu-build gpu-tests gpu-bench gpu-train gpu-sanitize: gpu-%:
	$(GPU_RUN) $*
gpu-tune:
	$(GPU_RUN) tune tuned

# docs/parity.md: every figure of the comparison with the reference; needs ../shared/golden.
parity: $(INSTALLED)
	$(BIN)/python -m tests.parity.report

# The wheel is built from the source distribution, so that this is checked too. GLIBC: the oldest that it runs with.
GLIBC := 2.28
# The time and the files' modes are part of the wheel's bytes.
WHEEL = umask 022; export PATH="$(CURDIR)/$(BIN):$$PATH" RESERVE_GLIBC=$(GLIBC) RESERVE_NATIVE=1 \
  RESERVE_CUDA=$(or $(CUDA),1) SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || echo 1700000000);
.PHONY: wheel
wheel: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-wheel.txt
	rm -rf dist
	$(WHEEL) $(BIN)/python -m build --no-isolation --outdir dist
	$(WHEEL) RESERVE_DIST=dist $(BIN)/python -m pytest -q tests/test_wheel.py
	@sha256sum dist/*.whl

# CONTAINER is a command with the options that the machine needs. IMAGE must have the Python of .venv, with venv, and no
# compiler; torch comes from where pip finds it.
CONTAINER ?= docker
IMAGE ?= docker.io/library/python:$(shell $(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)-slim
wheel-container: $(INSTALLED)
	@ls dist/*.whl >/dev/null 2>&1 || { echo "dist has no wheel: make wheel makes one"; exit 1; }
	rm -rf build/container && mkdir -p build/container
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --constraint constraints.txt --only-binary :all: \
	  --dest build/container torch numpy
	cp dist/*.whl tests/container/*.sh tests/container/*.py build/container
	$(CONTAINER) run --rm --network none --volume "$(CURDIR)/build/container:/packages:ro" $(IMAGE) sh /packages/check.sh

fuzz: $(INSTALLED)
	cmake -S . -B build/fuzz -DRESERVE_CUDA=OFF -DRESERVE_SANITIZE=ON -DRESERVE_FUZZ=ON
	cmake --build build/fuzz --parallel 2
	for driver in build/fuzz/*_fuzz; do $$driver $(or $(FUZZ_SECONDS),60) $(or $(FUZZ_SEED),1) || exit 1; done
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(or $(FUZZ_SECONDS),60) $(or $(FUZZ_SEED),1)

# The measured half of docs/scaling.md.
scaling: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.scaling.runs --save
	$(BIN)/python -m benchmarks.scaling.saves --save
	$(BIN)/python -m benchmarks.report

# docs/reliability.md: everything that ends long runs, done to small ones, and how long steps wait for data. Some cases
# mount file systems, for which they need to be root.
reliability: $(INSTALLED) $(DEMO_VIDEOS)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.train.fall_backs --save
	$(BIN)/python -m tests.train.kill_runs --kills $(or $(KILLS),30) --seed $(or $(KILL_SEED),1) --save
	$(BIN)/python -m benchmarks.waiting --videos $(DEMO)/videos/train --rounds 3 --save
	$(BIN)/python -m benchmarks.report

# docs/learning.md. ESC10 and FSDD are the folders of data sets of real sounds, which are left out without them.
learning: $(INSTALLED) $(DEMO_VIDEOS)
	LD_LIBRARY_PATH=$(FFMPEG) $(BIN)/python -m benchmarks.learning.objectives --videos $(DEMO)/videos --save
	LD_LIBRARY_PATH=$(FFMPEG) $(BIN)/python -m benchmarks.learning.finetuning --videos $(DEMO)/videos --save
	LD_LIBRARY_PATH=$(FFMPEG) $(BIN)/python -m benchmarks.learning.sounds $(if $(ESC10),--esc10 $(ESC10)) \
	  $(if $(FSDD),--fsdd $(FSDD)) --save
	$(BIN)/python -m benchmarks.report

# 1,000 synthetic videos in SHARD_VIDEOS, made where they are not there yet.
SHARD_VIDEOS ?= runs/shards-bench
shards-bench: $(INSTALLED)
	@test -f $(SHARD_VIDEOS)/.complete || { $(BIN)/reserve demo-data $(SHARD_VIDEOS) --videos 1000 --held_out 0 --seed 3 && \
	  touch $(SHARD_VIDEOS)/.complete; }
	$(BIN)/python -m benchmarks.shards.preparing --videos $(SHARD_VIDEOS)/train --save
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks.shards.loading --videos $(SHARD_VIDEOS)/train --save
	$(BIN)/python -m benchmarks.shards.limits --save
	$(BIN)/python -m benchmarks.shards.memory --videos $(SHARD_VIDEOS)/train --save
	$(BIN)/python -m benchmarks.report

# Figures of decoding (some 15 minutes), and memory over 10,000 clips a decoder (some 10). They need ffmpeg and ffprobe
# for the way of the released code.
decoding-bench: $(INSTALLED)
	LD_LIBRARY_PATH=$(FFMPEG) $(BIN)/python -m benchmarks decoding --save
	OMP_NUM_THREADS=1 LD_LIBRARY_PATH=$(FFMPEG) $(BIN)/python -m benchmarks.decoding_memory --save
	$(BIN)/python -m benchmarks.report

kill-test: $(INSTALLED)
	$(BIN)/python -m tests.train.kill_runs --kills $(or $(KILLS),24) --seed $(or $(KILL_SEED),1) --out $(or $(OUT),build/kill-test.json)

# Updates the table of the CUDA kernels' registers and shared memory, after an intended change of it.
cuda-resources: $(INSTALLED)
	$(BIN)/python -m tests.kernels.nvcc_report

# The same for the Triton kernels, some ten minutes for each version of Triton. OPS="attention ..." chooses.
triton-resources: $(INSTALLED)
	$(BIN)/python -m tests.kernels.triton_report $(OPS)

clean:
	rm -rf .venv build dist *.egg-info $(DEMO)
