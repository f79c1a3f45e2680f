"""A user's message before anything is kept: whose words it holds, which days it names, commands, secrets.

Knows nothing of storage or of what is worth keeping.
"""
