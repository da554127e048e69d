"""A cluster of real processes whose workers share one card."""
