"""Steps of exports, kept for the next export that asks for the same.

place.py    where they lie, and how much of them
entries.py  one kept step: a folder with its files and a record of what was asked; what is there, and removing it
keys.py     what the result of a step depends on
store.py    the kept steps as one export uses them: taken, made, held
"""
