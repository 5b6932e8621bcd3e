"""The commands of `rollmill`, one file a group. Heavy imports happen when a command runs."""
