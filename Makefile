# make compile              the whole job on the embedded model: quantize, export, compile, verify, evaluate
#                           (make build: the same; a rule does what its stage needs, and this one also what proves it)
# make compile MODEL=... WEIGHTS=... CALIB=... PICTURES=... TARGET=cpu RECIPE=w8a8 METHOD=repq BATCH=1
#                           RECIPE=w4a4-first8-last8: first and last layer's widths (8 if absent); or RECIPE=NAME.json
#                           CALIB=psaq|psaq2|noise: pictures made from the model alone (CALIB_SEED, CALIB_STEPS)
#                           WEIGHTS_KEY=model_ema NUM_CLASSES=10 MODEL_KWARGS="depth=6 num_heads=4": the weights and the model
#                           SAVE_IMAGES=folder: look at the calibration pictures
#                           CLASSES=names.txt: the order of the classes, for labels of PICTURES; make evaluate ALL=1: no shortcut
#                           RECIPE=mixed BUDGET_BYTES=N|BUDGET_BITOPS=N: a width for each layer, measured
#                           MAX_DROP=0.5: layers of a narrow recipe get 8 bits until 0.5 % of held-out answers change at most
# make sensitivity WIDTHS=3,4,6 PLOT=plot.png JSON=out.json       what narrow widths of each layer cost
# make compare-methods METHOD=repq,minmax RECIPE=w8a8,w4a8 CALIB=folder,psaq,noise BACKEND=fake|reference|library
#                           a table, PLOT=plot.png, JSON=out.json; a run that is stopped goes on
#                           SEEDS=0,1,2: as many draws of calibration pictures, mean and spread
# make zoo MODELS="deit_tiny_patch16_224 swin_tiny_patch4_window7_224" RECIPES=w8a8,w4a8 TARGETS=cpu,rpi5 WEIGHTS=folder
#                           models x recipes x targets in one table: built, integers proven, size, time; PICTURES=, PARALLEL=2,
#                           DASK=host:port, JSON=out.json; a run that is stopped goes on
# make compile TARGET=cuda ARCH=sm_75,sm_90        NVIDIA GPUs, on a machine with or without one
# make quantize|export|verify|evaluate|inspect   one stage, with the same variables
# make verify TARGET=cuda EMULATE=1                a CUDA library's kernels, without a GPU
# make explain PICTURES=folder HTML=report.html WIDER=wider.json REMOVALS=16 JSON=out.json   where accuracy goes, node by node, and what mends it
# make report BESIDE="folder folder" HTML=report.html   artifacts side by side: accuracy, size, time, integers
# make run INPUT=folder LABELS=names.txt    the best classes of pictures; with OUTPUT=y.npy their logits
# make targets|where        what can be compiled for; the folder of a library, made or not
# make doctor               what this machine has: compilers, emulators, GPU, extras; what each lack costs
# make deploy FLAVOUR=vm|static OUT=bundle LABELS=names.txt TO=user@host   what a device needs, without Python
# make tune|verify|benchmark TARGET=rpi5 TRACKER=host:port KEY=rpi5   on devices that run vitq-serve
# make check                lint, types, import contracts, and the tests that are fast: under three minutes
# make test                 the same with all tests
# make mutants MINUTES=40 SAMPLE=20 SEED=0   small wrong changes of numerics and of its proofs: each must fail a test
# make fuzz MINUTES=10 SEED=0   damaged files for every parser: one line, never a traceback or a hang
# make docs                 the site, in build/site; first the generated tables of README and docs
# make kit BATCH=1,8 CANDIDATES=24 KIT=kit ALL=1   for a GPU machine without TVM: cd kit && python3 -m gpu_kit
# make tune TARGET=cpu TRIALS=500 (or MINUTES=10) TUNING_LOG=folder THREADS=1 PRUNE=1
#                           search for faster kernels; compile uses what it finds (UNTUNED=1: not)
# make benchmark            beside other runtimes; BATCH=1,8,32 THREADS=1,2 PROFILE=1 SCALING=224,304,384
#                           PLOT=bars.png ROOFLINE=roofline.png JSON=out.json; see docs/guide/tuning.md
#                           BESIDE="folder folder": libraries of further artifacts take part

PYTHON ?= python3
VENV := .venv
VITQ := $(VENV)/bin/vitq
READY := $(VENV)/.ready

MODEL ?= digits_vit
TARGET ?= cpu
ARCH ?=
KIT ?= kit
CANDIDATES ?= 0
RECIPE ?= w8a8
METHOD ?= repq
NONLINEAR ?= vitq
BATCH ?= 1
ARTIFACTS ?= artifacts
WEIGHTS ?=
WEIGHTS_KEY ?=
RANDOM_WEIGHTS ?=
NUM_CLASSES ?=
OUTPUT_FEATURES ?=
MODEL_KWARGS ?=
CALIB ?=
CALIB_COUNT ?=
REMOVALS ?=
HTML ?=
WIDER ?=
CALIB_SEED ?=
CALIB_STEPS ?=
SAVE_IMAGES ?=
MAX_DROP ?=
BUDGET_BYTES ?=
BUDGET_BITOPS ?=
WIDTHS ?=
BACKEND ?=
SEEDS ?=
MODELS ?= digits_vit digits_swin
RECIPES ?= w8a8
TARGETS ?= cpu
PARALLEL ?=
DASK ?=
SEED ?=
SAMPLE ?=
PICTURES ?=
COUNT ?=
CLASSES ?=
PREPROCESSOR ?=
IMAGE_SIZE ?=
CROP_FRACTION ?=
RESIZE ?=
INTERPOLATION ?=
MEAN ?=
STD ?=
COLOR ?=
ORIENTATION ?=
INPUT ?=
OUTPUT ?=
FLAVOUR ?= vm
OUT ?= bundle
LABELS ?=
TO ?=
BESIDE ?=
TRACKER ?=
KEY ?=
TRIALS ?=
MINUTES ?=
TUNING_LOG ?=
UNTUNED ?=
THREADS ?=
PRUNE ?=
RESULTS ?=
ALL ?=
CONTESTANTS ?=
ROUNDS ?=
SCALING ?=
PROFILE ?=
EMULATE ?=
PLOT ?=
ROOFLINE ?=
JSON ?=

# A variable that no rule reads is a mistake: without this, MODLE=x would build the default model.
SETTABLE := $(sort $(shell sed -n 's/^\([A-Z_]*\) ?=.*/\1/p' $(firstword $(MAKEFILE_LIST))))
GIVEN := $(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name)))
UNKNOWN := $(filter-out $(SETTABLE) VENV VITQ READY MAKEFLAGS SHELL -%,$(GIVEN))
$(if $(UNKNOWN),$(error no rule reads $(UNKNOWN); there are $(SETTABLE); see make help))

# $(call option,--flag,VALUE): the flag with its value, or nothing where the value is empty.
option = $(if $(2),$(1) "$(2)")

QUANTIZE_OPTIONS = --model "$(MODEL)" --recipe "$(RECIPE)" --method $(METHOD) \
	--nonlinear $(NONLINEAR) --artifacts "$(ARTIFACTS)" \
	$(call option,--weights,$(WEIGHTS)) $(call option,--weights-key,$(WEIGHTS_KEY)) \
	$(call option,--random-weights,$(RANDOM_WEIGHTS)) $(call option,--num-classes,$(NUM_CLASSES)) \
	$(call option,--output-features,$(OUTPUT_FEATURES)) \
	$(foreach pair,$(MODEL_KWARGS),--model-kwargs "$(pair)") \
	$(call option,--calib,$(CALIB)) $(call option,--calib-count,$(CALIB_COUNT)) \
	$(call option,--calib-seed,$(CALIB_SEED)) $(call option,--calib-steps,$(CALIB_STEPS)) \
	$(call option,--save-images,$(SAVE_IMAGES)) $(call option,--budget-bytes,$(BUDGET_BYTES)) \
	$(call option,--budget-bitops,$(BUDGET_BITOPS)) $(call option,--max-drop,$(MAX_DROP)) \
	$(call option,--preprocessor,$(PREPROCESSOR)) $(call option,--image-size,$(IMAGE_SIZE)) \
	$(call option,--crop-fraction,$(CROP_FRACTION)) $(call option,--resize,$(RESIZE)) \
	$(call option,--interpolation,$(INTERPOLATION)) $(call option,--mean,$(MEAN)) \
	$(call option,--std,$(STD)) $(call option,--color,$(COLOR)) \
	$(call option,--orientation,$(ORIENTATION))
PICTURE_OPTIONS = $(call option,--pictures,$(PICTURES)) $(call option,--count,$(COUNT))
DEVICE_OPTIONS = $(call option,--tracker,$(TRACKER)) $(call option,--key,$(KEY))
LIBRARY_OPTIONS = --target $(TARGET) --batch $(BATCH) $(if $(UNTUNED),--untuned)
COMPILE_OPTIONS = $(LIBRARY_OPTIONS) $(call option,--arch,$(ARCH)) \
	$(call option,--tuning-log,$(TUNING_LOG))
# vitq alone knows what folders are called; a rule asks it when it runs, and stops where it refuses.
IN_ARTIFACT = folder=$$($(VITQ) where $(QUANTIZE_OPTIONS)) &&
IN_LIBRARY = folder=$$($(VITQ) where $(QUANTIZE_OPTIONS) $(LIBRARY_OPTIONS)) &&

.DELETE_ON_ERROR:
.PHONY: compile build quantize sensitivity compare-methods zoo export tune kit where targets verify evaluate explain report run inspect deploy doctor lint check test mutants fuzz docs benchmark setup clean help

compile build: $(READY)
	$(VITQ) build $(QUANTIZE_OPTIONS) $(PICTURE_OPTIONS) $(call option,--classes,$(CLASSES)) $(COMPILE_OPTIONS)

quantize: $(READY)
	$(VITQ) quantize $(QUANTIZE_OPTIONS)

sensitivity: $(READY)
	$(VITQ) sensitivity $(QUANTIZE_OPTIONS) $(call option,--widths,$(WIDTHS)) \
		$(call option,--plot,$(PLOT)) $(if $(JSON),--json > "$(JSON)")

compare-methods: $(READY)
	$(VITQ) compare-methods $(QUANTIZE_OPTIONS) $(PICTURE_OPTIONS) \
		$(call option,--backend,$(BACKEND)) $(call option,--seeds,$(SEEDS)) $(call option,--plot,$(PLOT)) \
		$(if $(JSON),--json > "$(JSON)")

zoo: $(READY)
	$(VITQ) zoo $(MODELS) --recipes "$(RECIPES)" --targets "$(TARGETS)" --batch "$(BATCH)" \
		--method $(METHOD) --artifacts "$(ARTIFACTS)" $(call option,--weights,$(WEIGHTS)) \
		$(call option,--random-weights,$(RANDOM_WEIGHTS)) $(foreach pair,$(MODEL_KWARGS),--model-kwargs "$(pair)") \
		$(call option,--image-size,$(IMAGE_SIZE)) $(call option,--preprocessor,$(PREPROCESSOR)) \
		$(call option,--calib,$(CALIB)) $(call option,--calib-count,$(CALIB_COUNT)) $(PICTURE_OPTIONS) \
		$(call option,--parallel,$(PARALLEL)) $(call option,--dask,$(DASK)) $(call option,--arch,$(ARCH)) \
		$(if $(JSON),--json > "$(JSON)")

export: quantize
	$(IN_ARTIFACT) $(VITQ) export "$$folder"

verify: $(READY)
	$(IN_LIBRARY) $(VITQ) verify "$$folder" $(PICTURE_OPTIONS) $(DEVICE_OPTIONS) $(if $(EMULATE),--emulate)

evaluate: $(READY)
	$(IN_LIBRARY) $(VITQ) evaluate "$$folder" $(PICTURE_OPTIONS) $(call option,--classes,$(CLASSES)) $(if $(ALL),--all)

explain: quantize
	$(IN_ARTIFACT) $(VITQ) explain "$$folder" $(PICTURE_OPTIONS) $(call option,--removals,$(REMOVALS)) \
		$(call option,--html,$(HTML)) $(call option,--wider,$(WIDER)) $(if $(JSON),--json > "$(JSON)")

tune: export
	$(IN_ARTIFACT) $(VITQ) tune "$$folder" --target $(TARGET) --batch $(BATCH) $(call option,--trials,$(TRIALS)) \
		$(call option,--minutes,$(MINUTES)) $(call option,--threads,$(THREADS)) \
		$(call option,--log,$(TUNING_LOG)) $(if $(PRUNE),--prune) $(call option,--results,$(RESULTS)) \
		$(DEVICE_OPTIONS)

kit: export
	$(IN_ARTIFACT) $(VITQ) kit "$$folder" --target $(if $(filter cpu,$(TARGET)),cuda,$(TARGET)) --batch "$(BATCH)" \
		--candidates $(CANDIDATES) --out "$(KIT)" $(call option,--arch,$(ARCH)) $(if $(ALL),--contestants)

run: $(READY)
	$(IN_LIBRARY) $(VITQ) run "$$folder" $(call option,--input,$(INPUT)) $(call option,--output,$(OUTPUT)) $(call option,--labels,$(LABELS))

deploy: $(READY)
	$(IN_LIBRARY) $(VITQ) deploy "$$folder" --flavour $(FLAVOUR) --out "$(OUT)" \
		$(call option,--labels,$(LABELS)) $(call option,--to,$(TO))

where: $(READY)
	$(VITQ) where $(QUANTIZE_OPTIONS) $(LIBRARY_OPTIONS)

targets: $(READY)
	$(VITQ) targets

doctor: $(READY)
	$(VITQ) doctor

report: $(READY)
	$(IN_ARTIFACT) $(VITQ) report "$$folder" $(BESIDE) $(call option,--html,$(HTML)) $(if $(JSON),--json > "$(JSON)")

inspect: $(READY)
	$(IN_LIBRARY) $(VITQ) inspect "$$folder"

benchmark: export
	$(IN_ARTIFACT) $(VITQ) benchmark "$$folder" $(BESIDE) --target $(TARGET) --batch "$(BATCH)" \
		$(call option,--threads,$(THREADS)) $(call option,--contestants,$(CONTESTANTS)) \
		$(call option,--rounds,$(ROUNDS)) $(call option,--scaling,$(SCALING)) \
		$(call option,--plot,$(PLOT)) $(call option,--roofline,$(ROOFLINE)) \
		$(DEVICE_OPTIONS) $(if $(PROFILE),--profile) $(if $(JSON),--json > "$(JSON)")

# What a change of the contract, the quantizer or a pass breaks; and one model through all stages.
CHECKED := tests/numerics tests/relay_passes tests/quantization tests/export tests/models \
	tests/compiler/test_makefile.py tests/compiler/test_makefile_examples.py tests/compiler/test_stages.py
PYTEST = $(VENV)/bin/python -m pytest -n auto --dist worksteal

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

check: lint
	$(PYTEST) $(CHECKED)

test: lint
	$(PYTEST)

mutants: $(READY)
	$(VENV)/bin/python -m tests.mutation.run $(call option,--minutes,$(MINUTES)) $(call option,--seed,$(SEED)) \
		$(call option,--sample,$(SAMPLE))

fuzz: $(READY)
	$(VENV)/bin/python -m tests.fuzz.run $(call option,--minutes,$(MINUTES)) $(call option,--seed,$(SEED))
	$(VENV)/bin/python -m tests.fuzz.runner_fuzz $(call option,--minutes,$(MINUTES)) $(call option,--seed,$(SEED))

docs: $(VENV)/.docs
	$(VENV)/bin/python -m docs.tools.results
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

$(VENV)/.docs: $(READY)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf "$(ARTIFACTS)"

help:
	@sed -n 's/^# //p' Makefile
