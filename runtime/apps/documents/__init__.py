"""Questions to a folder of documents: read, cut into passages, indexed, found, given to the model, and cited."""
