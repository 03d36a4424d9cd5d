"""Sensors of a machine: what its files and commands say, read as figures with units.

`tree` has the texts, of this machine, of a captured folder or of a dump that a device's shell made; all else is pure:

    heat       temperatures, thermal status, throttling
    clocks     policies of the processor, their governors and caps
    supply     battery, screen, battery saver, energy
    process    memory of a process and of the machine, pressure, scheduling
    snapshot   all of them at one time
    marks      what makes a latency of them not judgeable, and what to wait for before a measurement

A reading that cannot be had is None with a reason, never 0.
"""
