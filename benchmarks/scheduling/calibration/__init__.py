"""The same requests on a real cluster of this machine and in the simulator, whose costs are measured just before."""
