"""Links worse than a cable: an engine between two veth ends that delays, limits, loses, copies and reorders frames."""
