"""Names and links in a bundle, and arguments that become paths: every command refuses what it cannot use."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from smolship.tools.cli import run
from tests.bundles import snapshot

LONG = "y" * 5000
COMMANDS = {
    "inspect": [],
    "generate": ["hi", "-t", "onnx"],
    "chat": [],
    "parity": [],
    "bench": [],
    "weights": [],
    "report": [],
}


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle("llama", "int4"), tmp_path / "bundle")


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """refused(command, …) -> what it says; nothing is written."""
    monkeypatch.chdir(tmp_path)

    def ask(*arguments, code=2):
        before = snapshot(tmp_path)
        assert run([str(a) for a in arguments]) == code
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err and not printed.out and snapshot(tmp_path) == before
        return printed.err

    return ask


def rewrite(bundle, change):
    raw = json.loads((bundle / "manifest.json").read_text())
    change(raw)
    (bundle / "manifest.json").write_text(json.dumps(raw))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "folder", [LONG, "a/" * 2500, "bundle\0", "\ud834", "loop", "loop/bundle", "fifo", "bundle/config.json"]
)
def test_a_folder_that_is_none(bundle, tmp_path, refused, command, folder):
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    refused(command, folder, *COMMANDS[command])


@pytest.mark.parametrize(
    "arguments",
    [
        ["parity", "bundle", "--junit", LONG],
        ["parity", "bundle", "--junit", f"new/{LONG}/x.xml"],
        ["parity", "bundle", "--junit", "bundle"],
        ["parity", "bundle", "--junit", "bundle/config.json/x.xml"],
        ["report", "bundle", "-o", LONG],
        ["report", "bundle", "-o", "bundle"],
        ["report", "bundle", "-o", "page\0"],
        ["export", "MODEL", "-o", LONG],
        ["export", "MODEL", "-o", "out", "--probe-text", LONG],
        ["export", "MODEL", "-o", "out", "--probe-text", "."],
        ["export", LONG, "-o", "out"],
        ["export", f"./{LONG}", "-o", "out"],
        ["export", f"{LONG}.gguf", "-o", "out"],
        ["export", "loop", "-o", "out"],
        ["export", "MODEL", "-o", "loop"],
        ["export", "MODEL", "-o", "out", "--to", LONG],
        ["generate", "bundle", "hi", "-t", LONG],
    ],
)
def test_arguments_that_become_paths(bundle, tmp_path, tiny, refused, arguments, monkeypatch):
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for work in (
        "smolship.tools.measure.parity_of",
        "smolship.tools.report.results.full_report",
        "smolship.export.pipeline.run_step",
    ):
        monkeypatch.setattr(work, lambda *a, **k: pytest.fail("the work began"))
    refused(*[str(tiny("llama")) if a == "MODEL" else a for a in arguments])


NAMES = [
    "",
    ".",
    "a\0b",
    "\ud800.json",
    "a//b",
    "./config.json",
    "onnx/../config.json",
    "z" * 300,
    "/etc/hosts",
    "../x",
]


@pytest.mark.parametrize("command", ["inspect", "generate"])
@pytest.mark.parametrize("name", NAMES)
def test_file_names_of_a_manifest(bundle, refused, command, name):
    rewrite(bundle, lambda raw: raw["files"].update({name: {"size": 1, "sha256": "00"}}))
    refused(command, bundle, *COMMANDS[command])


@pytest.mark.parametrize("name", [*NAMES, "a/b", "x/../../y", "a\\b", "a\nb", "\x1b[31m"])
def test_names_of_targets(bundle, refused, name):
    rewrite(bundle, lambda raw: raw["targets"].update({name: raw["targets"]["onnx"]}))
    for command in ("inspect", "weights"):
        assert "name" in refused(command, bundle) or name.startswith(("/", "../", "x/", "onnx/"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["folder", "file"])
def test_folders_and_files_of_targets(bundle, refused, name, key):
    """A folder written in another way than the files' names would be opened without being hashed."""

    def change(raw):
        entry = raw["targets"]["onnx"]
        (entry if key == "folder" else entry["info"])[key] = name

    rewrite(bundle, change)
    refused("generate", bundle, "hi", "-t", "onnx")


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "name", ["tokenizer.json", "chat_template.jinja", "onnx/model.onnx", "probes.npz", "weights.json"]
)
@pytest.mark.parametrize("kind", ["a link to itself", "a ring of links", "a link to nowhere", "a fifo", "a folder"])
def test_what_lies_in_place_of_a_file(bundle, refused, name, kind):
    path = bundle / name
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind == "a fifo":
        os.mkfifo(path)
    elif kind == "a ring of links":
        path.symlink_to(f"{path}.2")
        (path.parent / f"{path.name}.2").symlink_to(path)
    else:
        path.symlink_to(path.name if kind == "a link to itself" else "nowhere")
    refused("inspect", bundle)
    refused("generate", bundle, "hi", "-t", "onnx") if name in ("tokenizer.json", "chat_template.jinja") else None
    refused("parity", bundle)


def test_the_manifest_itself(bundle, refused):
    for make in (
        lambda path: path.symlink_to(path.name),
        os.mkfifo,
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("/dev/zero"),
    ):
        (bundle / "manifest.json").unlink()
        make(bundle / "manifest.json")
        refused("inspect", bundle)
        refused("generate", bundle, "hi")
        (bundle / "manifest.json").rmdir() if (bundle / "manifest.json").is_dir() else None
        (bundle / "manifest.json").touch() if not os.path.lexists(bundle / "manifest.json") else None


@pytest.fixture
def cached(bundle, tmp_path):
    """The bundle as the Hub's cache holds it: every file a link to a blob."""
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(p for p in bundle.rglob("*") if p.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(os.path.relpath(blobs / str(number), path.parent))
    return bundle


def test_links_into_the_hubs_cache(cached, refused, tmp_path, capsys):
    for command, arguments in COMMANDS.items():
        said = refused(command, cached, *arguments)
        assert "through a link" in said and "blobs/" in said and "--local-dir" in said
        assert "export it again" not in said
    shutil.copytree(cached, tmp_path / "real")  # follows links, as cp -rL does
    assert run(["inspect", str(tmp_path / "real")]) == 0


def test_a_strange_link_to_a_folder(bundle, refused, tmp_path):
    (bundle / "onnx" / "sub").symlink_to(tmp_path)
    for command in ("inspect", "generate", "parity"):
        assert "onnx/sub: not in the manifest" in refused(command, bundle, *COMMANDS[command])


def test_a_bundle_reached_through_a_link(bundle, tmp_path, capsys):
    (tmp_path / "link").symlink_to(bundle)
    assert run(["inspect", str(tmp_path / "link")]) == 0
