"""Writes the licences of the crates that the library and the program contain. Standard input: `cargo metadata`.

Their sources are not part of this project, and most of the licences want their text to go along with the binary.
"""

import json
import pathlib
import re
import sys

metadata = json.load(sys.stdin)
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}


def contained(id, found):
    """The crates that are linked: not those of the tests, and not those that only run during the build."""
    for dependency in nodes[id]["deps"]:
        linked = any(kind["kind"] is None for kind in dependency["dep_kinds"])
        macros = any("proc-macro" in target["kind"] for target in packages[dependency["pkg"]]["targets"])
        if linked and not macros and dependency["pkg"] not in found:
            found.add(dependency["pkg"])
            contained(dependency["pkg"], found)
    return found


print("The library and the program contain parts of these crates, of Rust's standard library (MIT or Apache-2.0),")
print("and nothing of C dqlite.")
for id in sorted(contained(metadata["resolve"]["root"], set())):
    package = packages[id]
    print(f"\n{'=' * 80}\n{package['name']} {package['version']}: {package['license']}\n{package['repository'] or ''}")
    directory = pathlib.Path(package["manifest_path"]).parent
    for path in sorted(directory.iterdir()):
        if path.is_file() and re.match(r"(?i)(licen[cs]e|copying|copyright|notice)", path.name):
            print(f"\n--- {path.name}\n\n{path.read_text(errors='replace').strip()}")
