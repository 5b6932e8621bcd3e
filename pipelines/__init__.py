"""Making data: tasks, rollouts, datasets. Joins workspaces and verifiers with the model."""
