"""Training data: the token store, the mixture of domains and the batches of a step."""
