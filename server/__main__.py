"""`python -m server` is `tailor`."""

from server.cli import main

main()
