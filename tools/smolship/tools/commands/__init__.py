"""The commands of `smolship`, one a module; cli.py lists them. Modules import what costs time within the function."""
