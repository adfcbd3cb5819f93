"""The data channel: batches of IP packets to batches of P_DATA packets and back."""
