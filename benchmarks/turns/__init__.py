"""When does a turn end? Silence alone and end-of-turn models, on recordings of people."""
