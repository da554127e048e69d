"""How running answers go on at other workers: decided by the scheduler, carried out here."""
