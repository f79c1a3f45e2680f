"""The routes OpenAI's clients call, under /v1, and how their requests become turns. Knows no conversation."""
