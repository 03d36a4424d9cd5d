"""`smolship inspect`."""

from __future__ import annotations

from smolship.runtime.bundle import Bundle, open_bundle
from smolship.tools.commands import options
from smolship.tools.console import Screen


def inspect(folder: options.BundleDir, as_json: options.Json = False) -> None:
    """Show what a bundle holds, and check every file against its hash.

    Example:  smolship inspect smollm2
    """
    bundle = open_bundle(folder)
    bundle.verify()
    show_bundle(bundle, as_json)


def show_bundle(bundle: Bundle, as_json: bool) -> None:
    """The manifest: a table with its notes, or JSON."""
    from smolship.tools.tables import manifest_table
    from smolship.tools.units import notes

    if as_json:
        options.print_json(bundle.manifest.to_json())
        return
    Screen().print(manifest_table(bundle.manifest, bundle.path))
    options.say_notes(notes(bundle.manifest))
