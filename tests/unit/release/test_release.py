"""What a release needs, as far as no network is needed: versions, parts list, bounds, workflows."""

import hashlib
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement

from tests.shape.tree import ROOT

pytest.importorskip("cyclonedx")  # a tool, which make test-lowest does without
from release import dist, lowest, version
from release.address import absolute, with_urls

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
PINS = dict(re.findall(r"^([\w-]+)==(\S+)$", CONSTRAINTS, re.MULTILINE))
PYTHONS = [c.split(" :: ")[-1] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]


def declared():
    """(extra, requirement) of every line but those that name our own extras."""
    groups = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    for extra, lines in groups.items():
        yield from ((extra, r) for r in map(Requirement, lines) if r.name != "turnover")


def test_all_files_name_one_version():
    found = version.versions()
    del found["CHANGELOG.md"]  # says Unreleased until the day
    assert set(found.values()) == {PROJECT["version"]}


def test_a_tag_of_another_version_is_refused():
    command = [sys.executable, "-m", "release.version", "v99.0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1 and "'the tag v99.0': '99.0'" in done.stderr


def test_the_parts_list_is_up_to_date_and_follows_the_schema():
    pytest.importorskip("cyclonedx")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    from release import sbom

    kept = sbom.SBOM.read_text(encoding="utf-8")
    assert kept == sbom.text(), "run: python -m release.sbom"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(kept) is None
    digest = hashlib.sha256((sbom.STATIC / "htmx.min.js").read_bytes()).hexdigest()
    assert digest in kept


def test_every_vendored_file_has_its_licence_in_the_wheel():
    minified = sorted(ROOT.glob("src/**/*.min.js"))
    assert minified
    for path in minified:
        licence = path.with_name(path.name.removesuffix(".min.js") + ".LICENSE")
        assert str(licence.relative_to(ROOT)) in PROJECT["license-files"]


def test_a_missing_file_and_one_too_many_are_noticed(tmp_path):
    names = [name.removeprefix("src/") for name in dist.tracked("src")]
    assert "turnover/py.typed" in names
    sdist = tmp_path / "turnover.tar.gz"
    sdist.touch()
    for kept, said in (
        (set(names) - {"turnover/py.typed"}, "lacks {'turnover/py.typed'}"),
        ({*names, "turnover/extra.py"}, "{'turnover/extra.py'} too many"),
    ):
        with zipfile.ZipFile(tmp_path / "turnover.whl", "w") as wheel:
            for name in kept:
                wheel.writestr(name, "")
        with pytest.raises(SystemExit, match=re.escape(said)):
            dist.look_into(tmp_path / "turnover.whl", sdist)


def test_a_large_archive_is_refused(tmp_path):
    large = tmp_path / "turnover.whl"
    large.write_bytes(bytes(dist.LIMIT + 1))
    with pytest.raises(SystemExit, match=f"above {dist.LIMIT:,}"):
        dist.look_into(large, large)


def test_every_extra_is_tried_or_only_resolved_for_a_reason():
    from release._tries import EXTRAS

    assert set(EXTRAS) | set(dist.RESOLVED) | {"dev", "docs"} == set(
        PROJECT["optional-dependencies"]
    )


def test_the_lowest_pins_are_the_bounds():
    found = lowest.pins(PROJECT)
    assert {Requirement(line).name for line in PROJECT["dependencies"]} <= set(found)
    for _, requirement in declared():
        if requirement.name in found:
            assert requirement.specifier.contains(found[requirement.name])


@pytest.mark.parametrize(
    ("core", "extra", "said"),
    [(["numpy"], [], "exactly one lower bound"), (["numpy>=1"], ["numpy>=2"], "bounds 1 and 2")],
)
def test_a_bound_that_is_missing_or_twofold_is_refused(core, extra, said):
    with pytest.raises(ValueError, match=said):
        lowest.pins({"dependencies": core, "optional-dependencies": {"some": extra}})


def test_constraints_pin_what_is_declared_within_its_bounds():
    loose = {"timm", "umap"}  # never installed by setup
    wanted = {r.name: r for extra, r in declared() if extra not in loose}
    assert set(PINS) == set(wanted)
    for name, pinned in PINS.items():
        assert wanted[name].specifier.contains(pinned), name


def test_workflows_call_make_targets_that_exist_on_the_pythons_that_are_promised():
    yaml = pytest.importorskip("yaml")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    folder = ROOT / ".github" / "workflows"
    check, release = (
        yaml.safe_load((folder / f"{n}.yml").read_text()) for n in ("check", "release")
    )
    jobs = check["jobs"]["make"]["strategy"]["matrix"]["include"]
    assert {job["target"].split()[0] for job in jobs} <= targets
    assert {"lint", "test", "test-lowest", "docs", "dist-test"} <= {
        job["target"].split()[0] for job in jobs
    }
    tested = {job["python"] for job in jobs if job["target"].startswith("test")}
    assert sorted(tested) == PYTHONS == list(dist.VERSIONS)
    runs = [
        step["run"] for job in release["jobs"].values() for step in job["steps"] if "run" in step
    ]
    assert {run.split()[1] for run in runs if run.startswith("make")} <= targets
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in (folder / "release.yml").read_text()


ADDRESS = "https://host.example/owner/turnover"


def test_on_an_index_no_link_of_the_readme_is_relative():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = absolute(text, ADDRESS, "v1.2.3")
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", shown)
    assert links and all(link.startswith("https://") for _, link in links)
    assert ("!", f"{ADDRESS}/raw/v1.2.3/docs/images/proof.png") in links
    assert ("", f"{ADDRESS}/blob/v1.2.3/docs/start.md") in links
    files = [link.split("v1.2.3/")[1].partition("#")[0] for _, link in links if ADDRESS in link]
    assert all((ROOT / file).exists() for file in files)


def test_the_project_file_gets_its_addresses_and_nothing_else():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    before, after = tomllib.loads(text), tomllib.loads(with_urls(text, ADDRESS, "v1.2.3"))
    urls = after["project"].pop("urls")
    assert after == before and urls["Source"] == ADDRESS
