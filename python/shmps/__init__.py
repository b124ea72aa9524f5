"""Publish and subscribe between the processes of one machine, through shared memory."""
