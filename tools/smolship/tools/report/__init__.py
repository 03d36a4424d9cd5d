"""The report on a bundle: its results (results.py), and the HTML page that shows them (page.py, plots.py)."""
