"""Learners: pure functions that learn on any gymnax environment with discrete actions."""
