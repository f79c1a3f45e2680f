"""Each row's next token, constrained to a grammar if it has one, and the text to show. Knows nothing of models."""
