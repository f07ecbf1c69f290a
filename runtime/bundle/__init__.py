"""The bundle on disk: its contract and manifest, opening and checking it, and what tune and compile add to it."""
