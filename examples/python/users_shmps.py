"""users_shmps.py subscribe|publish: tell of new users, with shmps."""
import sys

import shmps

role = sys.argv[1]
with shmps.connect() as bus:
    if role == "publish":
        with bus.publisher("users/registered") as publisher:
            publisher.wait_subscribers()  # somebody has subscribed
            for user in ("Ada Lovelace", "Zoë Müller", ""):
                publisher.publish(user.encode())
    else:
        with bus.subscribe("users/registered") as subscriber:
            while user := bytes(subscriber.take()).decode():
                print("New user registered:", user)
