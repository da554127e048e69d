"""The big table: every policy on every case, seed by seed."""
