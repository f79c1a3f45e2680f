"""The default embedder, tuned for questions as people ask them: the texts, the training, the measure."""
