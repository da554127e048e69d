"""How fast weights get into memory: from disk, from DRAM, from a peer, beside every other loader."""
