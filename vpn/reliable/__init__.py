"""The reliability layer of the control channel: what to send again, what to deliver, what to acknowledge."""
