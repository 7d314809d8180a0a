"""`python -m bench [NAME …]`: every promise of SPECIFICATION.md, measured on this machine.

One file a measure: it has a `measure(bench)` that returns results. Speed is stated as a ratio to something plain that
was run in the same minutes, wherever that is possible: the machine's own speed then matters little.
"""
