"""The public door: streams, catalogue, cluster view."""
