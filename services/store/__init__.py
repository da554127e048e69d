"""The checkpoint store, one a node."""
