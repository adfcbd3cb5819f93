"""`testbed bench`: tunnels side by side, in the project's own lab, in one run.

run           which contenders, how often; interleaves them; turns samples into a `BenchResult`
contenders    what each program is told: files and commands of both ends (pure)
story         one round of one contender inside its bubble
traffic       what runs in the nodes: echo, count, probe, blast
processes     CPU time and memory of an end's processes, from /proc
model         measures, samples, medians, ratios (pure)
text, plot    the result as a table and as an SVG drawing (pure)
"""
