# From raw text to generated text: each stage is a command, each artifact a target.
#
#   make all CONFIG=gpt_balanced                     everything, on Hamlet
#   make all CONFIG=gpt_balanced DATASET=moby_dick   on another text of params.yaml
#   make all CONFIG=debug TEXT=my.txt                on a text of your own
#   make all SET="train.max_steps=40 train.seed=2"   with other parameters

CONFIG  ?= gpt_balanced
DATASET ?= hamlet
TEXT    ?=
SET     ?=
PYTHON  ?= python3
EXTRAS  ?= dev
SLOW    ?=
GPT2    := artifacts/runs/gpt2_small

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
PIPELINE := fetch tokenize build-dataset train evaluate generate plot report
LADDER   := bigram single_head multi_head single_block decoder
COMPARED := gpt_real gpt_demo gpt_deep gpt_balanced
.PHONY: help all why ladder comparison demo reproduce study study-check figures bench setup test test-kill test-fuzz test-browser lint format check wheel clean $(PIPELINE)

VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/ready$(if $(filter-out dev,$(EXTRAS)),.$(EXTRAS))
PLAN  := $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) plan.py
INPUT := '$(CONFIG)' '$(DATASET)' '$(TEXT)' '$(SET)'

help:
	@sed -n 's/^#   //p; s/^##//p' Makefile
	@$(PLAN) configs

## all            every stage, to a trained model, its evaluation, a sample and a figure
## why            what `make all` would run, and why
## report         one HTML page that tells all about the run of CONFIG, beside its weights: report.html
## ladder         the character models, from a bigram to a decoder, on Tiny Shakespeare or TEXT, and one table of them;
##                LADDER="single_head decoder" climbs these rungs only
## comparison     the finished runs among gpt_real, gpt_demo, gpt_deep and gpt_balanced, a panel each, in one figure;
##                trains nothing
## demo           GPT-2 small, where its weights can be had, else the run of CONFIG: a text, and each token explained;
##                PROMPT="The verdict was"
## study          is depth or width better? (docs/depth_and_width.md): some two hours, STUDY_BUDGET=15m for a short form;
##                it resumes.  study-check: the committed figures once more, from the committed results
## reproduce      numbers that others published, measured with our own code (docs/reproduce.md): half a minute;
##                SLOW=1 does two of their trainings first, about three and ten minutes on 2 cores
## setup          a Python environment in .venv, with the exact versions of constraints.txt
## test-kill      trainings killed at random moments, twenty times over: each must end with the bytes of one left alone
## test-fuzz      200,000 damaged and hostile files for everything that is read, some five minutes on 2 cores; FUZZ_SEED=7 others
## test-browser   looks at a report in a browser, chromium or chrome, where there is one; SCREENSHOTS=DIR keeps the pictures
## test           set up if needed, then all tests;  lint: format, lint and types;  check: lint, then test
## figures        those of docs/, after the ladder, by the commands that stand below them
## bench          a training step and generation beside transformers, and learning beside a plain loop; takes half an hour;
##                results to bench/results/
## wheel          a package in dist/;  format: lay out the code;  clean: remove artifacts/, trained runs too
## fetch tokenize build-dataset train evaluate generate plot      the pipeline up to that stage

why:
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

demo: export PROMPT ?= The verdict was
demo: | $(READY)
	@if test -f $(GPT2)/model.safetensors || { \
	    $(BIN)/fetch gpt2 gpt2_small && $(BIN)/import-weights data/gpt2_small/model.safetensors -o $(GPT2); }; \
	then run=$(GPT2); \
	else run=$$($(PLAN) runs $(INPUT)) && echo "GPT-2's weights cannot be had here; this is $$run" >&2; \
	fi; \
	$(BIN)/generate "$$run" "$$PROMPT" --temperature 0 --max-new-tokens 30 --explain --echo

reproduce: | $(READY)
	@for input in gpt2 hamlet the_verdict moby_dick tiny_shakespeare; do $(BIN)/fetch --quiet $$input || :; done
	@test -z '$(SLOW)' || { \
	    echo 'two trainings first, of about three and ten minutes on 2 cores, unless they are there:' >&2; \
	    $(MAKE) --silent --no-print-directory train CONFIG=published_char DATASET=tiny_shakespeare TEXT= SET= && \
	    $(MAKE) --silent --no-print-directory train CONFIG=published_verdict DATASET=the_verdict TEXT= SET=; }
	@$(BIN)/reproduce

# ── the pipeline: what plan.py names while make reads this, renewing the stamps whose content changed ──
ifneq (,$(filter all $(PIPELINE),$(MAKECMDGOALS)))

quote := '
$(if $(findstring $(quote),$(CONFIG)$(DATASET)$(TEXT)$(SET)),$(error a quote cannot stand in CONFIG, DATASET, TEXT or SET))
space := $(subst ,, )
NAMED := $(shell $(PLAN) variables $(INPUT))
$(if $(filter error:,$(NAMED)),$(error $(wordlist 2,999,$(NAMED))))
$(if $(NAMED),,$(error plan.py did not run: Python 3.11 or later is needed, make PYTHON=python3.12 names one))
$(foreach word,$(NAMED),$(eval $(subst |,$(space),$(word))))

OPTIONS := --config '$(CONFIG)' $(foreach change,$(SET),--set '$(change)')

all: generate plot
fetch: $(lastword $(TEXTS)) $(lastword $(VOCABULARY))
tokenize: $(TOKENS)/manifest.json
build-dataset: $(WINDOWS)/manifest.json
train: $(RUN)/model.safetensors
evaluate: $(RUN)/evaluation.json
generate: $(RUN)/sample.txt
plot: $(FIGURE)
report: $(RUN)/report.html

$(lastword $(TEXTS)): | $(READY)
	$(BIN)/fetch $(DATASET)

$(lastword $(VOCABULARY)): | $(READY)
	$(BIN)/fetch gpt2

$(TOKENS)/manifest.json: $(STAMP.tokenize) | $(READY) $(lastword $(TEXTS)) $(lastword $(VOCABULARY))
	$(BIN)/tokenize -o $(TOKENS) $(OPTIONS) -- $(if $(TEXT),'$(TEXT)',$(TEXTS))
	@cp $(STAMP.tokenize) $(STAMP.tokenize).made

$(WINDOWS)/manifest.json: $(TOKENS)/manifest.json $(STAMP.build-dataset) | $(READY)
	$(BIN)/build-dataset $(TOKENS) -o $(WINDOWS) $(OPTIONS)
	@cp $(STAMP.build-dataset) $(STAMP.build-dataset).made

$(RUN)/model.safetensors: $(WINDOWS)/manifest.json $(STAMP.train) | $(READY)
	$(BIN)/train $(WINDOWS) -o $(RUN) $(OPTIONS)
	@touch $@
	@cp $(STAMP.train) $(STAMP.train).made

$(RUN)/evaluation.json: $(RUN)/model.safetensors $(STAMP.evaluate) | $(READY)
	$(BIN)/evaluate $(RUN) $(WINDOWS) -o $@ $(OPTIONS)
	@cp $(STAMP.evaluate) $(STAMP.evaluate).made

$(RUN)/sample.txt: $(RUN)/model.safetensors $(STAMP.generate) | $(READY)
	$(BIN)/generate $(RUN) -o $@ $(OPTIONS)
	@cp $(STAMP.generate) $(STAMP.generate).made

$(RUN)/loss.png: $(RUN)/evaluation.json $(STAMP.plot) | $(READY) $(RUN)/sample.txt
	$(BIN)/plot loss $(RUN) -o $@ --summary $(OPTIONS)
	@cp $(STAMP.plot) $(STAMP.plot).made

$(FIGURE): $(RUN)/loss.png
	@mkdir -p $(@D)
	@cp $< $@.part
	@mv $@.part $@

$(RUN)/report.html: $(RUN)/evaluation.json $(RUN)/sample.txt | $(READY)
	$(BIN)/report $(RUN) -o $@

endif

# ── the environment and the tests ──
setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; make PYTHON=python3.12 names one")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $(VENV)/ready $@

test: | $(READY)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test-kill: | $(READY)
	KILL_ROUNDS=20 $(BIN)/python -m pytest tests/test_training.py -k killed_run_goes_on

test-fuzz: | $(READY)
	FUZZ_INPUTS=$${FUZZ_INPUTS:-200000} $(BIN)/python -m pytest tests/fuzz

test-browser: | $(READY)
	$(BIN)/python -m pytest -rs tests/browser.py

lint: | $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: | $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check:
	@$(MAKE) lint
	@$(MAKE) test

study:
	@$(MAKE) --no-print-directory build-dataset CONFIG=gpt_balanced DATASET=the_verdict TEXT= SET=
	@$(MAKE) --no-print-directory build-dataset CONFIG=gpt_balanced DATASET=moby_dick TEXT= SET=
	@$(MAKE) --no-print-directory build-dataset CONFIG=decoder DATASET=tiny_shakespeare TEXT= SET=
	$(BIN)/study -o artifacts/study$(if $(STUDY_BUDGET),-$(STUDY_BUDGET) --budget $(STUDY_BUDGET))

study-check: | $(READY)
	@rm -rf artifacts/study-check
	$(BIN)/study --results docs/study/results.json -o artifacts/study-check > /dev/null
	@for figure in docs/study/*.png docs/study/*.svg; do \
	    cmp "$$figure" artifacts/study-check/"$${figure##*/}" || exit; \
	done
	@echo "docs/study/ is what docs/study/results.json says"

figures:
	@$(MAKE) --no-print-directory ladder DATASET=tiny_shakespeare TEXT= SET=
	$(BIN)/python docs/figures.py

bench:
	@$(MAKE) --no-print-directory setup EXTRAS=dev,parity
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --constraint constraints.txt llms-from-scratch
	@$(MAKE) --no-print-directory build-dataset CONFIG=decoder_fast DATASET=tiny_shakespeare TEXT= SET=
	PYTHONPATH=. $(BIN)/python bench/quality.py
	PYTHONPATH=. $(BIN)/python bench/training.py
	PYTHONPATH=. $(BIN)/python bench/generation.py

wheel: | $(READY)
	$(BIN)/python -m build --wheel --outdir dist

clean:
	rm -rf artifacts dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
