"""HTTP, the WebSocket and OpenAI's routes over the parts. Knows nothing of how a turn, a search or a step works."""
