"""users_redis.py subscribe|publish URL: tell of new users, with redis-py."""
import sys
import time

import redis

role, url = sys.argv[1:]
with redis.Redis.from_url(url, decode_responses=True) as server:
    if role == "publish":
        while server.pubsub_numsub("users/registered")[0][1] == 0:  # nobody has subscribed
            time.sleep(0.01)
        for user in ("Ada Lovelace", "Zoë Müller", ""):
            server.publish("users/registered", user)
    else:
        with server.pubsub(ignore_subscribe_messages=True) as subscriber:
            subscriber.subscribe("users/registered")
            messages = subscriber.listen()
            while user := next(messages)["data"]:
                print("New user registered:", user)
