"""Predictors of a request's further tokens, from its first prompt and the requests completed before it.

A request's further tokens are all that enter its cache after the first prompt. One predictor a file, and training in a
file of its own. No torch here: weights are read as safetensors, which holds numbers and text and nothing that runs.

`azure_conv.safetensors` was trained on the conversation trace of Azure/AzurePublicDataset (CC-BY 4.0; Patel et al.,
Splitwise, ISCA 2024); its metadata says how, and `python -m kvbench train trace=azure_conv out=FILE` makes it anew.
"""
