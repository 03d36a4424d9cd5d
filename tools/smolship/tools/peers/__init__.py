"""Our artifacts beside what other projects make of the same model: `python -m smolship.tools.peers MODEL`.

A *row* is one artifact: who made it, and how. Every row is exported once, and measured and judged from the very same
files, which its hash names. Each row has processes of its own (worker.py), in an environment of the peer's own where it
needs other versions of our packages. The sessions of all rows stay open side by side; each round goes over all of them.

rows.py    what is compared
lab.py     environments, exports and results kept in a folder, so that an interrupted run continues
worker.py  the process that exports, opens, measures
process.py those processes and environments, as the lab sees them
shapes.py  random weights in the shape of a known model
table.py   what a person sees

One module a peer: `REQUIREMENTS` (of its own environment, if any), `PACKAGES` (what its sessions import),
`export(source, folder, options)` and `open_session(folder, options, threads)`.
"""
