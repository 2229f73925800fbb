"""Studies of reinforcement learning from preferences."""
