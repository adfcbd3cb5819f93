"""Opens captured frames layer by layer for people to read: what the report shows as the packet behind a cell.

It is not the observer: nothing here decides a verdict. It names fields and the octets they stand in, and says in one
line what Wireshark would say. Frames are dissected in the order of their capture, since TCP's relative numbers,
messages in several segments and a tunnel's wrapping follow from earlier packets. Total: no octets make it raise.
"""
