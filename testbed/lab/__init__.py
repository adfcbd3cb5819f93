"""The lab: a bubble of namespaces, a plan of nodes and links, and what runs in them."""
