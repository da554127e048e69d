"""The engine beside other engines: tokens a second, time to first token, and what its own features cost or save."""
