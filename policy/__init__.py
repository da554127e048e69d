"""The judgement: facts in, actions out; no I/O, no clock."""
