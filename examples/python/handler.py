"""A handler is called with each message."""

import shmps

with shmps.connect() as bus:

    @bus.on("hello")
    def handler(message):
        print(str(message.payload, "utf-8"))
        bus.loop_stop()

    bus.loop_forever()
