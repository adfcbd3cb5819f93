"""Recording what a wire carries (`tap`) and the file formats it is kept in (`pcapng`).

Nothing is imported here: a tap's process starts in a few milliseconds because it loads only its own part.
"""
