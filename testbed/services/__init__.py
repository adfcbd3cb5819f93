"""The lab's Internet: name servers, resolvers and web sites, in one process for the whole lab.

One file per protocol (`dns_server`, `http1`; another protocol is another file), one for what is said in it (`zones`,
`pages`), and `__main__` that reads a request, opens every socket in the node it belongs to and runs them all in one
event loop. What the conductor needs is in `request` (the JSON it sends) and `zones.zones_of_sites` (records for sites).
"""
