"""The command line: one click command per user job, no logic of its own."""
