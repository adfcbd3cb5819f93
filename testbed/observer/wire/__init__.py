"""Parsers of what stands on the wire in clear: octets in, values out, never an exception but each parser's own."""
