"""Keys and values of running rows and of prompts that are kept. Knows nothing of models or text."""
