"""Chaos: processes of a real cluster die and stand still while clients ask; what that did to answers is counted."""
