"""`testbed lesson`: predict, see, know. A lesson is a scenario with steps; its answers come from the run just made.

exhibits   what a step shows, opened from the run's captures
answers    which of a step's choices is right, by this run (pure)
text       a step's question, its exhibits and the outcome as text (pure)
teach      one pupil at a terminal
grade      a class: answers from a CSV file, a table of who was right (pure)
command    what stands behind the command line
"""
