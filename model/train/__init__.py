"""Training the policy: samples, packing, losses, the loop."""
