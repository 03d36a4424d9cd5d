"""The Android project's files agree with one another, and its stubs are held against what they stand for."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "android_demo"
NAME = "{http://schemas.android.com/apk/res/android}name"
DECLARATIONS = """
declare module android {
	export module os {
		export class Handler extends java.lang.Object {
			public static class: java.lang.Class<android.os.Handler>;
			public static LIMIT: 7;
			public static NAME: "an_id";
			public constructor(looper: android.os.Looper);
			public post(action: java.lang.Runnable): boolean;
			/** @since 28 */
			public hasCallbacks(action: java.lang.Runnable): boolean;
			public list(a: java.util.Map<string,number>, b: number): void;
		}
		export module Handler {
			export class Callback extends java.lang.Object {
				public constructor(implementation: {
					handle(message: string): boolean;
				});
				public constructor();
				public handle(message: string): boolean;
			}
		}
		export class Fast extends android.os.Handler {
			public constructor();
		}
	}
}
"""


@pytest.fixture(scope="module")
def stubs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_stubs", DEMO / "check_stubs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "member", "wrong"),
    [
        ("android.os.Handler", "public android.os.Handler(android.os.Looper)", None),
        ("android.os.Handler", "public final boolean post(java.lang.Runnable)", None),
        ("android.os.Fast", "public boolean post(java.lang.Runnable)", None),
        ("android.os.Handler", "public void list(java.util.Map<java.lang.String, java.lang.Integer>, int)", None),
        ("android.os.Handler", "public static final int LIMIT = 7", None),
        ("android.os.Handler", 'public static final java.lang.String NAME = "an_id"', None),
        ("android.os.Handler.Callback", "public abstract boolean handle(java.lang.String)", None),
        ("android.os.Handler", "public boolean poste(java.lang.Runnable)", "not in the framework"),
        ("android.os.Handler", "public boolean post(java.lang.Runnable, long)", "not in the framework"),
        ("android.os.Handler", "public android.os.Handler()", "not in the framework"),
        ("android.os.Fast", "public android.os.Fast(android.os.Looper)", "not in the framework"),
        ("android.os.Handler", "public static final int LIMIT = 8", "it is 7"),
        ("android.os.Handler", 'public static final java.lang.String NAME = "an_i"', "it is"),
        ("android.os.Handler", "public boolean hasCallbacks(java.lang.Runnable)", "API 28"),
        ("android.os.Fast", "public static final int SPEED", "not in the framework"),
    ],
)
def test_a_stub_is_held_against_the_framework(
    stubs: ModuleType, tmp_path: Path, name: str, member: str, wrong: str | None
) -> None:
    path = tmp_path / "framework.d.ts"
    path.write_text(DECLARATIONS)
    found = stubs.problem(name, member, stubs.declared(path))
    assert found is None if wrong is None else wrong in found


def test_versions_are_the_same_everywhere() -> None:
    catalog = tomllib.loads((DEMO / "gradle/libs.versions.toml").read_text())["versions"]
    toolchain = (DEMO / "toolchain").read_text()
    assert f"kotlin-compiler {catalog['kotlin']} " in toolchain
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert f"executorch=={catalog['executorch']}" in extras["executorch"]  # what wrote a .pte and what reads it
    readme = (DEMO / "README.md").read_text()
    gradle = re.search(r"gradle-([\d.]+)-bin", (DEMO / "gradle/wrapper/gradle-wrapper.properties").read_text())
    assert gradle
    for version in (
        f"ExecuTorch {catalog['executorch']}",
        f"ONNX Runtime {catalog['onnxruntime']}",
        f"GenAI {catalog['onnxruntime-genai']}",
        f"onnxruntime-genai-android-{catalog['onnxruntime-genai']}.aar",
        f"--gradle-version {gradle[1]}",
    ):
        assert version in readme


def test_both_builds_compile_in_the_same_way() -> None:
    """What android_demo/check gives the compiler is what Gradle is told."""
    assert "-jvm-target 1.8" in (DEMO / "common.sh").read_text()
    for module in ("core", "app"):
        assert "JVM_1_8" in (DEMO / module / "build.gradle.kts").read_text()
    manifest = (DEMO / "check_app").read_text()
    gradle = (DEMO / "app/build.gradle.kts").read_text()
    for name in ("min", "target"):
        found = re.search(rf"{name}Sdk = (\d+)", gradle)
        assert found and f"--{name}-sdk-version {found[1]}" in manifest


def test_every_text_is_used_and_every_class_of_the_manifest_is_there() -> None:
    main = DEMO / "app/src/main"
    sources = "".join(path.read_text() for path in main.rglob("*") if path.suffix in (".kt", ".xml"))
    strings = ElementTree.parse(main / "res/values/strings.xml").getroot()
    for entry in strings:
        name = entry.attrib["name"]
        assert re.search(rf"R\.(string|array)\.{name}\b|@string/{name}\b", sources), name
    manifest = ElementTree.parse(main / "AndroidManifest.xml").getroot()
    classes = [e.attrib[NAME] for e in manifest.iter() if e.tag in ("application", "activity")]
    assert len(classes) == 4
    for name in classes:
        assert (main / f"kotlin/dev/smolship/demo{name.replace('.', '/')}.kt").is_file(), name


def _colors(folder: str) -> dict[str, str]:
    file = ElementTree.parse(DEMO / "app/src/main/res" / folder / "colors.xml")
    return {entry.attrib["name"]: entry.text or "" for entry in file.getroot()}


def _luminance(color: str) -> float:
    """As WCAG 2 defines it."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("folder", ["values", "values-night"])
def test_words_can_be_read_by_day_and_night(folder: str) -> None:
    colors = _colors(folder)
    assert colors.keys() == _colors("values").keys()
    words = _luminance(colors["words"])
    for name in ("question", "answer", "problem"):
        light, dark = sorted((words, _luminance(colors[name])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 7, name  # WCAG's AAA


def test_texts_grow_with_the_font_and_buttons_can_be_hit() -> None:
    android = NAME.removesuffix("name")
    for file in (DEMO / "app/src/main/res/layout").glob("*.xml"):
        for view in ElementTree.parse(file).iter():
            size = view.attrib.get(f"{android}textSize", "16sp")
            assert size.endswith("sp"), f"{file.name}: {size}"
            if view.tag in ("Button", "EditText"):
                assert view.attrib.get(f"{android}minHeight") == "48dp", f"{file.name}: {view.attrib}"
                assert view.attrib[f"{android}layout_height"] == "wrap_content"


def test_no_library_or_program_is_kept_here() -> None:
    files = subprocess.run(
        ["git", "ls-files", "android_demo"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert files
    assert not [name for name in files if Path(name).suffix in (".jar", ".aar", ".so", ".dex", ".apk", ".class")]
