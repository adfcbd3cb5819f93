"""OpenVPN configuration files in, frozen settings out.

In reading order: `words` cuts a line into words, `directives` a file into directives (inline blocks included), `shapes`
turns words into typed values, `table` lists every option with what it means here, `options` holds a whole
configuration's values, and `client`, `server`, `static_key`, `tls`, `network` and `data` build the settings from
them. `load.load_configuration` is the entrance. Only `load` and `files` touch the file system.
"""
