"""Checks of the app's project that need no Mac: project.yml by XcodeGen's documented keys, the files that it names, the
plists and entitlements, and that every module an app's file imports comes from somewhere.

    python ios_demo/check_project.py [FOLDER]     exit code 1 and a line for each problem
"""

from __future__ import annotations

import plistlib
import re
import sys
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

import yaml  # type: ignore[import-untyped]

# The keys of XcodeGen's ProjectSpec.md, as it documents them for each kind of mapping.
KEYS = {
    "project": """
        name include options attributes breakpoints configs configFiles settings settingGroups targets fileGroups
        schemes schemeTemplates targetTemplates packages projectReferences""",
    "options": """
        minimumXcodeGenVersion carthageBuildPath carthageExecutablePath createIntermediateGroups bundleIdPrefix
        settingPresets developmentLanguage usesTabs indentWidth tabWidth xcodeVersion projectFormat deploymentTarget
        disabledValidations defaultConfig groupSortPosition groupOrdering transitivelyLinkDependencies
        generateEmptyDirectories findCarthageFrameworks localPackagesGroup fileTypes preGenCommand postGenCommand
        useBaseInternationalization schemePathPrefix defaultSourceDirectoryType""",
    "target": """
        type platform supportedDestinations deploymentTarget sources configFiles settings dependencies info entitlements
        templates templateAttributes transitivelyLinkDependencies directlyEmbedCarthageDependencies requiresObjCLinking
        onlyCopyFilesOnInstall buildToolPlugins preBuildScripts postCompileScripts postBuildScripts buildRules scheme
        legacy attributes putResourcesBeforeSourcesBuildPhase""",
    "source": """
        path name group compilerFlags excludes includes explicitFolders destinationFilters inferDestinationFiltersByPath
        createIntermediateGroups optional buildPhase type headerVisibility attributes resourceTags""",
    "dependency": "target framework carthage sdk package bundle",
    "linking": """
        embed link codeSign removeHeaders weak platformFilter destinationFilters platforms copy product products
        root""",
    "version": "majorVersion from minorVersion exactVersion version minVersion maxVersion branch revision",
    "scheme": """
        configVariants testTargets gatherCoverageData coverageTargets disableMainThreadChecker
        stopOnEveryMainThreadCheckerIssue disableThreadPerformanceChecker buildImplicitDependencies language region
        commandLineArguments environmentVariables testPlans preActions postActions management storeKitConfiguration""",
}
KNOWN = {kind: set(keys.split()) for kind, keys in KEYS.items()}

# Modules by what brings them: the SDK, or the product of a package.
IN_LINUX = {"Foundation", "Observation", "Synchronization", "SmolshipCore"}  # what the compiler here has itself
APPLE = IN_LINUX - {"SmolshipCore"} | {
    "Accessibility",
    "CoreML",
    "Darwin",
    "SwiftUI",
    "UIKit",
    "UniformTypeIdentifiers",
    "os",
}
ELSEWHERE = {"FoundationNetworking"}  # Linux alone, behind canImport
PRODUCTS = {
    "SmolshipCore": "SmolshipCore",
    "Tokenizers": "Tokenizers",
    "ExecuTorch": "executorch",
    "ExecuTorchLLM": "executorch_llm",
}
INFO = {
    "CFBundleExecutable": "$(EXECUTABLE_NAME)",
    "CFBundleIdentifier": "$(PRODUCT_BUNDLE_IDENTIFIER)",
    "CFBundlePackageType": "APPL",
    "CFBundleShortVersionString": "$(MARKETING_VERSION)",
    "CFBundleVersion": "$(CURRENT_PROJECT_VERSION)",
    "LSSupportsOpeningDocumentsInPlace": True,
    "UIFileSharingEnabled": True,
    "UILaunchScreen": {},
    "NSAppTransportSecurity": {"NSAllowsLocalNetworking": True},
}
ENTITLEMENTS = {
    "com.apple.developer.kernel.increased-memory-limit": True,
    "com.apple.developer.kernel.extended-virtual-addressing": True,
}
REASONS = {  # Apple's, of the categories in use
    "NSPrivacyAccessedAPICategoryDiskSpace": {"85F4.1", "E174.1", "7D9E.1", "B728.1"},
    "NSPrivacyAccessedAPICategoryFileTimestamp": {"DDA9.1", "C617.1", "3B52.1", "0A2A.1"},
    "NSPrivacyAccessedAPICategoryUserDefaults": {"CA92.1", "1C8F.1", "C56D.1", "AC6B.1"},
    "NSPrivacyAccessedAPICategorySystemBootTime": {"35F9.1", "8FFB.1", "3D61.1"},
}


class Once(yaml.SafeLoader):
    """YAML in which a key that is there twice is refused: the second would silently replace the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Of a mapping's keys and values."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {str(key) for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {', '.join(sorted(twice))} twice")
        return dict(super().construct_mapping(node, deep))


def problems(folder: Path) -> Iterator[str]:
    """What is wrong with the project in `folder`, a line each."""
    try:
        project = yaml.load((folder / "project.yml").read_text(), Once)
    except (OSError, yaml.YAMLError) as error:
        yield f"project.yml: {error}"
        return
    if not isinstance(project, dict):
        yield "project.yml: no mapping"
        return
    yield from _unknown(project, KNOWN["project"], "project.yml")
    yield from _unknown(project.get("options", {}), KNOWN["options"], "options")
    yield from _settings(project.get("settings", {}), "settings")
    packages = project.get("packages", {})
    for name, package in packages.items():
        yield from _package(folder, name, package)
    for name, target in project.get("targets", {}).items():
        yield from _target(folder, name, target, packages)
    for name, wanted in (("App/Info.plist", INFO), ("App/Smolship.entitlements", ENTITLEMENTS)):
        found = _plist(folder / name)
        if isinstance(found, str):
            yield f"{name}: {found}"
            continue
        yield from (f"{name}: {k} is {found.get(k)!r}, not {v!r}" for k, v in wanted.items() if found.get(k) != v)
    yield from _privacy(folder)
    yield from _imports(folder, project)


def _unknown(found: Any, known: set[str], where: str) -> Iterator[str]:
    if not isinstance(found, dict):
        yield f"{where}: no mapping"
        return
    yield from (f"{where}: {key} is no key of XcodeGen's" for key in found if key not in known)


def _settings(found: Any, where: str) -> Iterator[str]:
    """Build settings: plain, or under base, configs and groups; XcodeGen ignores plain ones beside these."""
    if not isinstance(found, dict):
        yield f"{where}: no mapping"
    elif set(found) & {"base", "configs", "groups"}:
        yield from _unknown(found, {"base", "configs", "groups"}, where)


def _package(folder: Path, name: str, package: dict[str, Any]) -> Iterator[str]:
    where = f"package {name}"
    if "path" in package:
        yield from _unknown(package, {"path", "group", "excludeFromProject"}, where)
        if not (folder / package["path"] / "Package.swift").is_file():
            yield f"{where}: no Package.swift in {package['path']}"
        return
    yield from _unknown(package, {"url", "github", *KNOWN["version"]}, where)
    if not str(package.get("url", "")).startswith("https://"):
        yield f"{where}: no https address"
    said = sorted(set(package) & KNOWN["version"])
    if len(said) != 1:
        yield f"{where}: {said} where one of {sorted(KNOWN['version'])} says the version"


def _target(folder: Path, name: str, target: dict[str, Any], packages: dict[str, Any]) -> Iterator[str]:
    where = f"target {name}"
    yield from _unknown(target, KNOWN["target"], where)
    yield from _settings(target.get("settings", {}), f"{where}: settings")
    yield from _unknown(target.get("scheme", {}), KNOWN["scheme"], f"{where}: scheme")
    if (target.get("type"), target.get("platform")) != ("application", "iOS"):
        yield f"{where}: {target.get('type')} for {target.get('platform')}, not an application for iOS"
    paths = []
    for source in target.get("sources", []):
        source = {"path": source} if isinstance(source, str) else source
        yield from _unknown(source, KNOWN["source"], f"{where}: a source")
        paths.append(source.get("path", "nothing"))
    base = target.get("settings", {}).get("base", {})
    paths += [base.get(key, f"a {key}") for key in ("INFOPLIST_FILE", "CODE_SIGN_ENTITLEMENTS")]
    yield from (f"{where}: there is no {path}" for path in paths if not (folder / path).exists())
    for dependency in target.get("dependencies", []):
        kinds = set(dependency) & KNOWN["dependency"]
        yield from _unknown(dependency, KNOWN["dependency"] | KNOWN["linking"], f"{where}: a dependency")
        if len(kinds) != 1:
            yield f"{where}: a dependency of {len(kinds)} kinds: {dependency}"
        elif "package" in kinds and dependency["package"] not in packages:
            yield f"{where}: {dependency['package']} is no package of the project"


def _plist(path: Path) -> dict[str, Any] | str:
    try:
        found = plistlib.loads(path.read_bytes())
    except (OSError, ValueError, ExpatError, plistlib.InvalidFileException) as error:
        return f"no property list: {error}"
    return found if isinstance(found, dict) else "no dictionary"


def _privacy(folder: Path) -> Iterator[str]:
    name = "App/PrivacyInfo.xcprivacy"
    found = _plist(folder / name)
    if isinstance(found, str):
        yield f"{name}: {found}"
        return
    if found.get("NSPrivacyTracking") is not False or found.get("NSPrivacyCollectedDataTypes") != []:
        yield f"{name}: the app tracks nobody and collects nothing, and this says otherwise"
    for entry in found.get("NSPrivacyAccessedAPITypes", []):
        kind, reasons = entry.get("NSPrivacyAccessedAPIType"), entry.get("NSPrivacyAccessedAPITypeReasons", [])
        if not reasons or not set(reasons) <= REASONS.get(kind, set()):
            yield f"{name}: {reasons} are no reasons of {kind}"


def _imports(folder: Path, project: dict[str, Any]) -> Iterator[str]:
    """Every imported module is Apple's or a dependency's, and has a stub where Linux lacks it."""
    linked = set()
    for target in project.get("targets", {}).values():
        for dependency in target.get("dependencies", []):
            if "package" in dependency:
                linked |= set(dependency.get("products", [dependency.get("product", dependency["package"])]))
    files = sorted((folder / "App").rglob("*.swift"))
    if not files:
        yield "App: no Swift files"
    for path in files:
        for module in re.findall(r"^\s*(?:@\w+ )?import (\w+)", path.read_text(), re.MULTILINE):
            if module in ELSEWHERE:
                continue
            if module not in APPLE and PRODUCTS.get(module) not in linked:
                yield f"{path.relative_to(folder)}: nothing that the project links brings {module}"
            if module not in IN_LINUX and not (folder / "Stubs" / module).is_dir():
                yield f"{path.relative_to(folder)}: {module} has no stub"


if __name__ == "__main__":
    found = list(problems(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent))
    print("\n".join(found) or "project.yml, the plists and the entitlements are as they should be")
    sys.exit(1 if found else 0)
