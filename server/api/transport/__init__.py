"""What holds before a route is reached and while its answer leaves: bounds on connections, heads, bodies and outboxes,
hosts and origins, and the log of requests. Knows nothing of what a route does.
"""
