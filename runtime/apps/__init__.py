"""Applications: what a loaded model is for. Each is a short typed call on `Model` and a subcommand."""
