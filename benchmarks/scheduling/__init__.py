"""Scheduling: decisions, dispatch, and policies side by side in the simulator."""
