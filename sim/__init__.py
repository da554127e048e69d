"""The scheduler's judgement on paper: workloads, a cluster in simulated time, other systems' policies, and bounds."""
