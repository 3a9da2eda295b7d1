.PHONY: run test check

run: ## compare the default strategies on a short chat
	python -m kvbench +scenario=short_chat

test: ## the whole suite
	python -m pytest

check: ## what CI does
	bash .ci/run
