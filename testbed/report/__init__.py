"""Reports: one `RunResult` in, text out.

`terminal` (rich), `html` (one offline file), `json` (the contract `result.json`) and `junit` are imported by name, so
that a command pays only for the renderer it uses. `progress` tells how a run gets on while it runs.
"""
