"""From a store's bytes to a model that runs."""
