"""Write the software bill of materials: the package and what it needs to run, as installed here.

    python tools/sbom.py dist/sbom.cdx.json

CycloneDX 1.6 as JSON. In it are the dependencies of every extra that is for running things and is
installed whole, and what those need in turn. What only develops or documents is not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = "parnet-deploy"
NOT_FOR_RUNNING = {"dev", "docs"}
SCHEMA = SchemaVersion.V1_6

Key = tuple[str, str]  # a distribution's name, and the extra of it that is wanted; "" for none


def main(target: Path) -> None:
    """Write the file."""
    target.write_text(render(), encoding="utf-8")
    print(f"{target}: {len(find_needed()) - 1} packages that {PACKAGE} runs with")


def render() -> str:
    """The document."""
    needed = find_needed()
    components = {name: _component(name) for name in needed}
    root = components.pop(canonicalize_name(PACKAGE))
    root.type = ComponentType.APPLICATION
    root.properties.update(
        Property(name=f"{PACKAGE}:extra", value=extra) for extra in complete_extras()
    )
    bom = Bom(components=components.values())
    bom.metadata.component = root
    everything = {**components, canonicalize_name(PACKAGE): root}
    for name, behind in needed.items():
        bom.register_dependency(everything[name], [everything[other] for other in sorted(behind)])
    return make_outputter(bom, OutputFormat.JSON, SCHEMA).output_as_string(indent=1) + "\n"


def complete_extras() -> list[str]:
    """The extras for running things of which everything is installed."""
    offered = metadata.metadata(PACKAGE).get_all("Provides-Extra") or []
    return [
        extra
        for extra in sorted(set(offered) - NOT_FOR_RUNNING)
        if all(map(_installed, _required(PACKAGE, extra)))
    ]


def find_needed() -> Mapping[str, set[str]]:
    """Every package that is needed, and those that each of them needs itself."""
    pending: list[Key] = [(PACKAGE, ""), *((PACKAGE, extra) for extra in complete_extras())]
    done: set[Key] = set()
    found: dict[str, set[str]] = {}
    while pending:
        name, extra = key = pending.pop()
        if key in done:
            continue
        done.add(key)
        behind = found.setdefault(canonicalize_name(name), set())
        for requirement in _required(name, extra):
            if not _installed(requirement):
                continue  # of another system, or of an extra of theirs that nobody asked for
            behind.add(canonicalize_name(requirement.name))
            pending += [(requirement.name, wanted) for wanted in ("", *requirement.extras)]
    return found


def _required(name: str, extra: str) -> Iterator[Requirement]:
    """What a package asks for here, with this extra of it."""
    for line in metadata.requires(name) or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def _installed(requirement: Requirement) -> bool:
    try:
        metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _component(name: str) -> Component:
    about = metadata.metadata(name)
    return Component(
        type=ComponentType.LIBRARY,
        name=about["Name"],
        version=about["Version"],
        description=about.get("Summary"),
        licenses=_licenses(about.get("License-Expression"), about.get_all("Classifier") or ()),
        purl=(purl := PackageURL("pypi", None, canonicalize_name(name), about["Version"])),
        bom_ref=str(purl),
    )


def _licenses(expression: str | None, classifiers: Iterable[str]) -> list[object]:
    """What the package says of its licence; nothing where it says nothing that is defined."""
    factory = LicenseFactory()
    if expression:
        return [factory.make_from_string(expression)]
    said = (line.split(" :: ")[-1] for line in classifiers if line.startswith("License ::"))
    return [factory.make_with_name(name) for name in said if name != "OSI Approved"]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
