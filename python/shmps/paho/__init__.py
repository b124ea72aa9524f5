"""paho-mqtt's interface on the bus in shared memory: a program changes its import only.

    import shmps.paho as mqtt                   was: import paho.mqtt.client as mqtt
    import shmps.paho.client as mqtt            the same
    import shmps.paho.publish as publish        was: import paho.mqtt.publish as publish
    import shmps.paho.subscribe as subscribe    was: import paho.mqtt.subscribe as subscribe

What MQTT means on this bus is told in docs/decisions/0027-mqtt-on-the-bus.md; what cannot be had
raises NotSupportedError.
"""

from . import client, publish, subscribe
from .client import *

__all__ = ["publish", "subscribe"]
__all__ += client.__all__
