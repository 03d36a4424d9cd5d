"""The iOS app's project files: what check_project.py says of them, and that it finds what is wrong."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

DEMO = Path(__file__).parents[2] / "ios_demo"


def script(name: str) -> ModuleType:
    """A script of ios_demo, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DEMO / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A copy of what the check looks at, to edit."""
    for name in ("App", "Stubs"):
        shutil.copytree(DEMO / name, tmp_path / name)
    shutil.copy(DEMO / "project.yml", tmp_path)
    (tmp_path / "SmolshipCore").mkdir()
    shutil.copy(DEMO / "SmolshipCore" / "Package.swift", tmp_path / "SmolshipCore")
    return tmp_path


def test_the_project_is_as_it_should_be() -> None:
    assert list(script("check_project").problems(DEMO)) == []


FAULTS = {
    "unknown key": ("project.yml", "    type: application\n", "    typ: application\n", "typ is no key of XcodeGen's"),
    "key twice": ("project.yml", "name: Smolship\n", "name: Smolship\nname: Other\n", "name twice"),
    "no YAML": ("project.yml", "name: Smolship\n", "name: [\n", "project.yml: "),
    "missing folder": ("project.yml", "- path: App\n", "- path: Apps\n", "there is no Apps"),
    "missing plist": ("project.yml", "App/Info.plist", "App/Inform.plist", "there is no App/Inform.plist"),
    "no version": ("project.yml", "    exactVersion: 1.3.3\n", "", "says the version"),
    "unknown package": ("project.yml", "- package: SmolshipCore\n", "- package: Core\n", "Core is no package"),
    "unlinked module": (
        "project.yml",
        "        product: Tokenizers\n",
        "",
        "nothing that the project links brings Tokenizers",
    ),
    "unknown module": ("App/SmolshipApp.swift", "import UIKit\n", "import AppKit\n", "links brings AppKit"),
    "broken plist": ("App/Info.plist", "</dict>\n</plist>", "</plist>", "no property list"),
    "Files cannot see it": (
        "App/Info.plist",
        "<key>UIFileSharingEnabled</key>\n\t<true/>",
        "<key>UIFileSharingEnabled</key>\n\t<false/>",
        "UIFileSharingEnabled is False",
    ),
    "no entitlement": (
        "App/Smolship.entitlements",
        "increased-memory-limit",
        "memory-limit",
        "increased-memory-limit is None",
    ),
    "no reason": ("App/PrivacyInfo.xcprivacy", "E174.1", "E174.2", "are no reasons of"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, demo: Path) -> None:
    name, old, new, said = FAULTS[fault]
    text = (demo / name).read_text()
    assert old in text
    (demo / name).write_text(text.replace(old, new, 1))
    assert any(said in line for line in script("check_project").problems(demo))


def test_a_module_without_a_stub_is_found(demo: Path) -> None:
    shutil.rmtree(demo / "Stubs" / "CoreML")
    assert any("CoreML has no stub" in line for line in script("check_project").problems(demo))


def test_the_readme_names_the_versions_of_the_project() -> None:
    project, readme = (DEMO / "project.yml").read_text(), (DEMO / "README.md").read_text()
    stubs = (DEMO / "Stubs" / "README.md").read_text()
    for pattern in (r"exactVersion: (\S+)", r"branch: (\S+)", r"minimumXcodeGenVersion: (\d+\.\d+)"):
        (version,) = re.findall(pattern, project)
        assert version in readme
    assert "swift-transformers 1.3.3" in stubs and "ExecuTorch 1.4.1" in stubs
