# make demo | test | test-all | fuzz | lint | clean. Nothing needs to be installed first but Python, make and g++.
#
# PY     the interpreter to start from. When it already has everything that the goal needs, it is used as it is and
#        nothing is installed; otherwise a virtual environment is made once, and updated when pyproject.toml changes.
# TORCH  the torch to install. Another one than the default gets an environment of its own, beside the first:
#            make demo TORCH=torch==2.12.0
#        Only the version is pinned here. Which build of it arrives (CPU, CUDA) is decided by pip's own configuration;
#        on Linux that is, unless configured, the build with CUDA, which runs on a machine without a GPU as well.
# VENV   the directory of that environment.
# ARGS   more arguments for pytest:  make test ARGS="-k gilr -x"
# JOBS   how tests are spread over processes, a file to each:  make test JOBS="-n 0"  runs them in this one, for a debugger
# FUZZ   how long to try random cells; the same command goes on where it stopped:  make fuzz FUZZ="--minutes 30"

PINNED := torch==2.13.0

PY    ?= python3
TORCH ?= $(PINNED)
VENV  ?= .venv$(if $(filter-out $(PINNED),$(TORCH)),-$(shell printf '%s' '$(TORCH)' | tr -cs 'A-Za-z0-9.' '-'))
ARGS  ?=
JOBS  ?= -n auto --maxprocesses 8 --dist loadfile
FUZZ  ?= --cells 20000

# What each goal imports. An interpreter that has it all, and the torch that was asked for by name, is good enough.
NEEDS          := numpy torch sympy jinja2
NEEDS_demo     := sklearn matplotlib tqdm
NEEDS_lint     := ruff mypy
NEEDS_test     := pytest hypothesis xdist
NEEDS_test-all := pytest hypothesis xdist
NEEDS_fuzz     := pytest hypothesis
needs := $(NEEDS) $(sort $(foreach goal,$(MAKECMDGOALS),$(NEEDS_$(goal))))
asked := $(if $(filter file,$(origin TORCH)),,$(TORCH))
probe := import sys; from importlib.metadata import version; from importlib.util import find_spec; \
         asked, *needs = sys.argv[1:]; \
         good = sys.version_info >= (3, 11) and all(map(find_spec, needs)); \
         torch = "torch==" + version("torch") if good else ""; \
         print("yes" if good and asked in ("", torch, torch.split("+")[0]) else "no")
ready := $(filter yes,$(shell $(PY) -c '$(probe)' '$(asked)' $(needs) 2>/dev/null))

# The name of the stamp tells what the environment was made from.
stamp  := $(VENV)/ready-$(shell { cat pyproject.toml; echo '$(TORCH)'; } | cksum | tr ' ' '-')
python := $(if $(ready),$(PY),$(VENV)/bin/python)
home   := $(if $(ready),,$(stamp))
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

.PHONY: help demo test test-all fuzz lint clean

help:
	@sed -n '/^$$/q;s/^# \{0,1\}//p' Makefile

demo: $(home)
	$(python) examples/demo.py

test: $(home)
	$(python) -m pytest -q $(JOBS) $(ARGS)

test-all: $(home)
	$(python) -m pytest -q -m "long or not long" $(JOBS) $(ARGS)

fuzz: $(home)
	$(python) -m tests.fuzz $(FUZZ)

lint: $(home)
	$(python) -m ruff check .
	$(python) -m mypy

clean:
	rm -rf .venv .venv-* build dist *.egg-info out lrdsl-dump* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and alone: pip would otherwise be free to choose the newest one that the range in pyproject.toml
# admits. What was installed is then written down as a constraint, so that nothing after it can change it.
$(stamp):
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lrdsl needs Python 3.11 or later, e.g. PY=python3.12")'
	$(PY) -m venv $(VENV)
	rm -f $(VENV)/ready-*
	$(VENV)/bin/python -m pip install '$(TORCH)'
	$(VENV)/bin/python -c 'from importlib.metadata import version; print("torch==" + version("torch"))' > $(VENV)/constraints.txt
	$(VENV)/bin/python -m pip install -c $(VENV)/constraints.txt -e '.[dev]'
	touch $@
