.PHONY: run test slow mutants gpu check

run: ## compare the default strategies on a short chat
	python -m kvbench +scenario=short_chat

test: ## the whole suite, in two processes
	python -m pytest -n 2 --dist worksteal

slow: ## tests that CI leaves out: more of the same, on more scenarios, and a real model; what is drawn is drawn anew
	python -m pytest -n 2 --dist worksteal -m slow --hypothesis-profile=anew
	python -m pytest -n 2 --dist worksteal --hypothesis-profile=anew

mutants: ## plant faults in the core, and see whether tests notice; hours, or a part: MUTANTS="--shard 1/4"
	python -m benchmarks.mutants $(MUTANTS)

gpu: ## tests and figures of one GPU, in six minutes at most; KVBENCH_GPU_DEVICE=cpu rehearses it
	python benchmarks/gpu.py

check: ## what CI does
	bash .ci/run
