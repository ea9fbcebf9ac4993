"""The parts list of the wheel, as CycloneDX: ``python -m release.sbom`` writes it anew.

It names the packages that ``pyproject.toml`` declares, and the one part of the wheel that was
written elsewhere. Tools for tests, checks and pages are left out. Versions of declared packages are
ranges, since pip chooses them. The wheel carries the list in its ``.dist-info/sboms`` (PEP 770).
Nothing in it depends on time or machine.
"""

import hashlib
import re
import tomllib
import uuid
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement

from release.lowest import TOOLS

ROOT = Path(__file__).parent.parent
SBOM = ROOT / "release" / "turnover.cdx.json"
STATIC = ROOT / "src" / "turnover" / "explore" / "static"
EXTRA = "turnover:extra"
RANGE = "turnover:version range"


def bom() -> Bom:
    """Turnover, the packages that it asks for, and the parts of others that it carries."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, version = project["name"], project["version"]
    own = Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        licenses=[LicenseFactory().make_from_string(project["license"])],
        purl=PackageURL("pypi", name=name, version=version),
        bom_ref=name,
    )
    parts = [_htmx(), *_declared(project)]
    found = Bom(
        components=parts, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"pypi/{name}/{version}")
    )
    found.metadata.component = own
    found.register_dependency(own, parts)
    return found


def _htmx() -> Component:
    """The one vendored file, with the version that its licence file states."""
    said = (STATIC / "htmx.LICENSE").read_text(encoding="utf-8")
    version = re.match(r"htmx ([\d.]+)", said)[1]
    digest = hashlib.sha256((STATIC / "htmx.min.js").read_bytes()).hexdigest()
    return Component(
        name="htmx.org",
        version=version,
        type=ComponentType.LIBRARY,
        licenses=[LicenseFactory().make_from_string("0BSD")],
        purl=PackageURL("npm", name="htmx.org", version=version),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        bom_ref="htmx.org",
    )


def _declared(project: dict[str, object]) -> list[Component]:
    """One component for each declared package, with the extras that bring it."""
    named: dict[str, tuple[str, set[str]]] = {}
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    for extra in groups.keys() - (TOOLS - {"timm", "lightning"}):
        for line in groups[extra]:
            found = Requirement(line)
            if found.name != project["name"]:
                named.setdefault(found.name, (str(found.specifier), set()))[1].add(extra)
    return [
        Component(
            name=name,
            type=ComponentType.LIBRARY,
            purl=PackageURL("pypi", name=name),
            bom_ref=name,
            properties=[
                Property(name=RANGE, value=range_),
                *(Property(name=EXTRA, value=extra) for extra in sorted(extras - {""})),
            ],
        )
        for name, (range_, extras) in sorted(named.items())
    ]


def text() -> str:
    """The list as JSON, the same at any time and on any machine."""
    found = bom()
    found.metadata.timestamp = None
    found.metadata.tools.tools.clear()
    return JsonV1Dot6(found).output_as_string(indent=1) + "\n"


if __name__ == "__main__":
    SBOM.write_text(text(), encoding="utf-8")
