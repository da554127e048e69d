"""What no policy can do better than, each under the conditions that it states."""
