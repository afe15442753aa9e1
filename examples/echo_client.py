"""Sends each line of its input and prints the echo: ``python examples/echo_client.py shm://demo``."""

import sys

import proclink

with proclink.connect(sys.argv[1]) as link:
    for line in sys.stdin:
        link.send(line.encode())
        print(link.recv(timeout=10).decode(), end="")
