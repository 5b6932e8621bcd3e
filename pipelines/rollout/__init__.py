"""Rollouts: policies, the agent loop, episodes."""
