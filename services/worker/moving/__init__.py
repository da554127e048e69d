"""Requests on their way from this worker and to it: who is expected, who leaves, and the bytes between them."""
