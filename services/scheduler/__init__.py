"""The decisions of the cluster, carried out."""
