# make compile              the whole job on the embedded model: quantize, export, compile, verify, evaluate
# make compile MODEL=... WEIGHTS=... CALIB=... PICTURES=... TARGET=cpu RECIPE=w8a8 METHOD=repq BATCH=1
# make quantize|export|verify|evaluate|inspect   one stage, with the same variables
# make run INPUT=x.npy OUTPUT=y.npy
# make test                 lint, types, import contracts, tests
# make benchmark            latency beside onnxruntime

PYTHON ?= python3
VENV := .venv
VITQ := $(VENV)/bin/vitq
READY := $(VENV)/.ready

MODEL ?= digits_vit
TARGET ?= cpu
RECIPE ?= w8a8
METHOD ?= repq
NONLINEAR ?= vitq
BATCH ?= 1
ARTIFACTS ?= artifacts
WEIGHTS ?=
RANDOM_WEIGHTS ?=
CALIB ?=
CALIB_COUNT ?=
PICTURES ?=
COUNT ?=
IMAGE_SIZE ?=
MEAN ?=
STD ?=
INPUT ?=
OUTPUT ?= logits.npy

# $(call option,--flag,VALUE): the flag with its value, or nothing where the value is empty.
option = $(if $(2),$(1) "$(2)")

QUANTIZE_OPTIONS = --model "$(MODEL)" --recipe $(RECIPE) --method $(METHOD) \
	--nonlinear $(NONLINEAR) --artifacts "$(ARTIFACTS)" \
	$(call option,--weights,$(WEIGHTS)) $(call option,--random-weights,$(RANDOM_WEIGHTS)) \
	$(call option,--calib,$(CALIB)) $(call option,--calib-count,$(CALIB_COUNT)) \
	$(call option,--image-size,$(IMAGE_SIZE)) $(call option,--mean,$(MEAN)) \
	$(call option,--std,$(STD))
PICTURE_OPTIONS = $(call option,--pictures,$(PICTURES)) $(call option,--count,$(COUNT))
SUFFIX := $(if $(filter-out vitq,$(NONLINEAR)),-$(NONLINEAR))
FOLDER = $(ARTIFACTS)/$(subst :,.,$(MODEL))/$(RECIPE)-$(METHOD)$(SUFFIX)
LIBRARY = $(FOLDER)/$(TARGET)$(if $(filter-out 1,$(BATCH)),-b$(BATCH))

.DELETE_ON_ERROR:
.PHONY: compile quantize export verify evaluate run inspect test benchmark setup clean help

compile: $(READY)
	$(VITQ) build $(QUANTIZE_OPTIONS) $(PICTURE_OPTIONS) --target $(TARGET) --batch $(BATCH)

quantize: $(READY)
	$(VITQ) quantize $(QUANTIZE_OPTIONS)

export: quantize
	$(VITQ) export "$(FOLDER)"

verify: $(READY)
	$(VITQ) verify "$(LIBRARY)" $(PICTURE_OPTIONS)

evaluate: $(READY)
	$(VITQ) evaluate "$(LIBRARY)" $(PICTURE_OPTIONS)

run: $(READY)
	$(VITQ) run "$(LIBRARY)" --input "$(INPUT)" --output "$(OUTPUT)"

inspect: $(READY)
	$(VITQ) inspect "$(LIBRARY)"

benchmark: compile
	$(VENV)/bin/python -m benchmarks.latency "$(LIBRARY)"

test: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python -m pytest -n auto

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf "$(ARTIFACTS)"

help:
	@sed -n 's/^# //p' Makefile
