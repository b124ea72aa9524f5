"""The tutorial's MQTT subscriber, with its import changed. paho_send.py publishes for it."""

import threading

import shmps.paho as mqtt

received = threading.Event()


def on_message(client, userdata, msg):
    print(f"New user registered: {msg.payload.decode()}")
    received.set()


client = mqtt.Client()
client.on_message = on_message
client.connect("mqtt.eclipse.org", 1883)
client.subscribe("users/registered")
client.loop_start()
received.wait()
client.loop_stop()
client.disconnect()
