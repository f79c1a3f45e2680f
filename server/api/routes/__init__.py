"""HTTP routes of the web client and the command line, a file a subject. Knows nothing of OpenAI's shapes."""
