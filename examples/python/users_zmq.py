"""users_zmq.py subscribe|publish ADDRESS: tell of new users, with pyzmq."""
import sys

import zmq

role, address = sys.argv[1:]
with zmq.Context() as context:
    if role == "publish":
        with context.socket(zmq.XPUB) as publisher:
            publisher.bind(address)
            publisher.recv()  # somebody has subscribed
            for user in ("Ada Lovelace", "Zoë Müller", ""):
                publisher.send_multipart([b"users/registered", user.encode()])
    else:
        with context.socket(zmq.SUB) as subscriber:
            subscriber.connect(address)
            subscriber.subscribe("users/registered")
            while user := subscriber.recv_multipart()[1].decode():
                print("New user registered:", user)
