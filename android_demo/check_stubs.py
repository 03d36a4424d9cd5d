"""Holds the stubs of Android's framework against published declarations of its API:

    python3 android_demo/check_stubs.py CLASSES DECLARATIONS

CLASSES are the compiled stubs, DECLARATIONS a TypeScript file that lists the whole framework. Each class, method (with
its number of parameters), field and constant of a stub must be there; what is newer than the app's oldest Android must
be in GUARDED, which names where the app asks for the version first.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

OLDEST = 26
GUARDED = {
    "android.os.SharedMemory": "NativeMemory: from Android 8.1 on",
    "android.os.PowerManager.getCurrentThermalStatus": "Meter: from Android 10 on",
    "android.os.Build.SOC_MANUFACTURER": "BenchActivity: from Android 12 on",
    "android.os.Build.SOC_MODEL": "BenchActivity: from Android 12 on",
    "android.os.Build.VERSION_CODES": "numbers, which the compiler copies",
}
SCOPE = re.compile(
    r"^\s*(?:declare|export) (module|class|abstract class|interface) ([\w.]+)(?:<[^{]*>)?(?: extends ([\w.]+))?"
)
SINCE = re.compile(r"@since (\d+)")
MEMBER = re.compile(r"^\s*public (?:static )?(\w+)(\(|: )(.*)$")
STUB = re.compile(r"^(?:public |protected |abstract |final |static )*(?:class|interface) ([\w.$]+)")


@dataclass
class Class:
    """Members by name: numbers of parameters (-1 for a field), a constant's value, the Android that brought it."""

    base: str | None = None
    since: int = 0
    members: dict[str, list[tuple[int, str, int]]] = field(default_factory=dict)


def declared(path: Path) -> dict[str, Class]:
    """The classes that the declarations list."""
    found: dict[str, Class] = {}
    scopes: list[tuple[str, bool]] = []
    since = depth = 0
    for line in path.read_text().splitlines():
        if match := SINCE.search(line):
            since = int(match[1])
            continue
        if (match := SCOPE.match(line)) and line.rstrip().endswith("{"):
            scopes.append((match[2], match[1] != "module"))
            if match[1] != "module":
                found[".".join(name for name, _ in scopes)] = Class(match[3], since)
        elif depth or line.strip() in ("}", "});") or line.rstrip().endswith("{"):
            # The body of a constructor that implements an interface is no scope of ours.
            depth += line.count("{") - line.count("}")
            if depth < 0:
                depth = 0
                scopes.pop()
        elif scopes and scopes[-1][1] and (match := MEMBER.match(line)):
            count = parameters(match[3]) if match[2] == "(" else -1
            value = match[3].rstrip(";") if count < 0 else ""
            owner = found[".".join(name for name, _ in scopes)]
            owner.members.setdefault(match[1], []).append((count, value, since))
        if "/**" not in line and "*/" not in line:
            since = 0
    return found


def parameters(text: str) -> int:
    """How many parameters stand before the closing parenthesis."""
    depth, count, some = 0, 1, False
    for char in text:
        if char == ")" and depth == 0:
            break
        depth += (char in "(<[{") - (char in ")>]}")
        count += char == "," and depth == 0
        some = True
    return count if some else 0


def stubs(classes: Path) -> dict[str, list[str]]:
    """The members of the compiled stubs, as javap writes them."""
    files = sorted(str(file) for file in classes.glob("android/**/*.class"))
    said = subprocess.run(
        ["javap", "-protected", "-constants", *files], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, list[str]] = {}
    name = ""
    for line in said.splitlines():
        if match := STUB.match(line):
            name = match[1].replace("$", ".")
            found[name] = []
        elif line.startswith("  ") and line.strip() != "static {};":
            found[name].append(line.strip().rstrip(";"))
    return found


def problem(name: str, member: str, known: dict[str, Class]) -> str | None:
    """What is wrong with one member of a stub; None for nothing."""
    call = re.search(r"([\w.$]+)\((.*)\)", member)
    if call:
        short = "constructor" if call[1].replace("$", ".") == name else call[1]
        count, value = parameters(call[2] + ")"), ""
    else:
        left, _, value = member.partition(" = ")
        short, count = left.split()[-1], -1
    owner: str | None = name
    while owner in known:
        for there, constant, since in known[owner].members.get(short, []):
            if there != count and not ("..." in member and there == count):
                continue
            if value and constant != re.sub(r"(?<=\d)[lfd]$", "", value):
                return f"{value}, and it is {constant}"
            if since > OLDEST and f"{name}.{short}" not in GUARDED and name not in GUARDED:
                return f"is there from API {since} on, and the app begins at {OLDEST}"
            return None
        owner = known[owner].base if short != "constructor" else None
    return "is not in the framework"


def main() -> int:
    classes, declarations = map(Path, sys.argv[1:])
    known, given = declared(declarations), stubs(classes)
    problems, count = [], 0
    for name, members in given.items():
        if name not in known:
            problems.append(f"{name}: is not in the framework")
            continue
        if known[name].since > OLDEST and name not in GUARDED:
            problems.append(f"{name}: is there from API {known[name].since} on")
        for member in members:
            count += 1
            if wrong := problem(name, member, known):
                problems.append(f"{name}: {member}: {wrong}")
    print(f"{len(given)} classes, {count} members, {len(problems)} not as in Android's API")
    print(*problems, sep="\n", end="\n" if problems else "")
    return min(1, len(problems)) if given else 1


if __name__ == "__main__":
    sys.exit(main())
