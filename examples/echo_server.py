"""Sends back what any number of clients send: ``python examples/echo_server.py shm://demo``."""

import sys
import threading

import proclink


def echo(link: proclink.Link) -> None:
    """Serves one client until it is gone."""
    try:
        with link:
            for message in link:
                link.send(message)
    except proclink.Disconnected as error:
        print(error)


with proclink.listen(sys.argv[1]) as listener:
    print("listening at", listener.address, flush=True)
    for client in listener:
        threading.Thread(target=echo, args=(client,), daemon=True).start()
