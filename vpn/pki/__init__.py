"""A small certificate authority and key maker for tunnels: CA, certificates, CRL, static and tls-crypt keys, profiles.

`python -m vpn pki …` is its front (`commands`). `authority` makes X.509 objects, `vpn.crypto` the texts of OpenVPN's
own keys, `private_files` writes both so that nobody else can read them, `profiles` gathers them into one `.ovpn` file.

It is meant for labs: keys are EC P-256, private keys are stored without a passphrase, and the CA's key lies beside the
others.
"""
