"""Mixed bits: each unit of matrices gets the form that a budget of bytes is best spent on.

asked.py        the budget, as it is asked for
units.py        which matrices share a form, the forms that each may have, and their bytes
sensitivity.py  what each form of each matrix costs in KL divergence
allocate.py     the forms of least cost within the budget
step.py         the step of the export
"""
