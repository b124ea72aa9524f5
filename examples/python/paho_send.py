"""The tutorial's MQTT publisher, with its import changed. The message is retained, so that it
does not matter whether paho_receive.py is there already."""

import sys

import shmps.paho as mqtt

client = mqtt.Client()
client.connect("mqtt.eclipse.org", 1883)
client.loop_start()
payload = sys.argv[1] if sys.argv[1:] else "Ada Lovelace"
client.publish("users/registered", payload, qos=1, retain=True).wait_for_publish()
client.loop_stop()
client.disconnect()
