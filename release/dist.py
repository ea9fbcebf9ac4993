"""Build wheel and sdist, look into them, and install them where nothing is: ``make dist-test``.

Built twice from two folders, the files must be the same to the last byte. Then each Python that is
found gets an empty environment with the wheel. In it runs what needs no extra, and all else must
say which extra it needs. Every extra is installed alone, in an environment of its own that borrows
only torch and the few other packages of a bare install. The sdist is installed beside the wheel.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packaging.metadata import Metadata

from release._tries import BARE, EXTRAS, LIGHT, Try
from release.sbom import SBOM

ROOT = Path(__file__).parent.parent
VERSIONS = ("3.11", "3.12", "3.13")
PIP_ARGS = os.environ.get("PIP_ARGS", "").split()
LIMIT = 1_000_000  # bytes of the wheel, and of the sdist
RESOLVED = {
    "timm": "brings torchvision, whose build must fit that of torch",
    "test": "all extras at once, as make test installs them",
}
"""Extras of which pip only says what it would install, and why."""


def run(*words: object, **options: object) -> str:
    """Standard output of a command; its whole output, and the end of it all, where it fails."""
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        encoding="utf-8",
        check=False,
        **options,
    )
    if done.returncode:
        said = f"{done.stdout}{done.stderr}"
        sys.exit(f"{' '.join(map(str, words))}\nended with {done.returncode}:\n{said}")
    return done.stdout


def tracked(*below: str) -> list[str]:
    """Files of the working tree that git knows or would take."""
    listed = run("git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "--", *below)
    return [line for line in listed.splitlines() if (ROOT / line).is_file()]


def build(into: Path) -> tuple[Path, Path]:
    """Wheel and sdist, built from two copies of the tree; they are equal byte for byte."""
    date = run("git", "-C", ROOT, "log", "-1", "--format=%ct").strip()
    built = []
    for number in (1, 2):
        copy, out = into / f"copy{number}" / "tree", into / f"out{number}"
        for name in tracked():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)  # and not its dates
        run("git", "init", "-q", copy)  # .gitignore counts in a repository only
        where = {**os.environ, "SOURCE_DATE_EPOCH": date}
        where.pop("PYTHONPATH", None)
        run(sys.executable, "-m", "build", "-q", "--outdir", out, copy, env=where)
        built.append(sorted(out.iterdir()))
    first, second = built
    assert [f.name for f in first] == [f.name for f in second]
    for one, other in zip(first, second, strict=True):
        if one.read_bytes() != other.read_bytes():
            sys.exit(
                f"{one.name}: two builds of the same sources differ; compare {one} and {other}."
            )
    wheel = next(f for f in first if f.suffix == ".whl")
    sdist = next(f for f in first if f.name.endswith(".tar.gz"))
    return wheel, sdist


def look_into(wheel: Path, sdist: Path) -> None:
    """No file is missing or too many; sizes, licences, parts list and metadata are right."""
    for archive in (wheel, sdist):
        if archive.stat().st_size > LIMIT:
            sys.exit(f"{archive.name} has {archive.stat().st_size:,} bytes, above {LIMIT:,}.")
    sources = {name.removeprefix("src/") for name in tracked("src")}
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
        inside = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
        if inside != sources:
            sys.exit(f"The wheel lacks {sources - inside} and has {inside - sources} too many.")
        info = next(name for name in names if name.endswith("/METADATA")).removesuffix("METADATA")
        metadata = Metadata.from_email(opened.read(f"{info}METADATA"), validate=True)
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for licence in project["license-files"]:
            assert opened.read(f"{info}licenses/{licence}") == (ROOT / licence).read_bytes(), (
                licence
            )
        assert opened.read(f"{info}sboms/{SBOM.name}") == SBOM.read_bytes(), "parts list"
    assert str(metadata.license_expression) == project["license"]
    assert set(metadata.provides_extra or ()) == set(project["optional-dependencies"])
    with tarfile.open(sdist) as opened:
        inside = {member.name.partition("/")[2] for member in opened if member.isfile()}
    missing = {f"src/{name}" for name in sources} | {"pyproject.toml", "LICENSE", "README.md"}
    if missing - inside:
        sys.exit(f"The sdist lacks {missing - inside}.")


def pythons() -> Iterator[str]:
    """Interpreters of the versions promised, on the path or below pyenv."""
    for version in VERSIONS:
        places = [shutil.which(f"python{version}"), *_pyenv(version)]
        found = next((place for place in places if place and _starts(place)), None)
        if found is None:
            print(f"Python {version}: not here, not tried", flush=True)
        else:
            yield found


def _pyenv(version: str) -> list[str]:
    below = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    return [str(p) for p in sorted(below.glob(f"{version}.*/bin/python"), reverse=True)]


def _starts(python: str) -> bool:
    done = subprocess.run([python, "-c", "import venv"], capture_output=True, check=False)
    return done.returncode == 0


class Room:
    """An environment of its own, empty but for what it is given."""

    def __init__(self, python: str, folder: Path, borrows: Path | None = None) -> None:
        run(python, "-m", "venv", folder)
        self.folder, self.bin = folder, folder / "bin"
        self.site = next(folder.glob("lib/python*/site-packages"))
        if borrows is not None:
            (self.site / "borrowed.pth").write_text(f"{borrows}\n", encoding="utf-8")

    def pip(self, *words: object) -> str:
        """Pip, held to constraints.txt."""
        return run(self.bin / "python", "-m", "pip", *words, env=self.surroundings())

    def install(self, *what: object) -> None:
        """Install, with the torch of constraints.txt."""
        self.pip("install", "-q", *PIP_ARGS, "-c", ROOT / "constraints.txt", *what)

    def surroundings(self) -> dict[str, str]:
        """Variables without those that would let another installation in."""
        gone = {"PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME"}
        kept = {k: v for k, v in os.environ.items() if k not in gone}
        return {**kept, "PYTHONWARNINGS": "ignore", "COLUMNS": "80"}

    def attempt(self, what: Try, folder: Path) -> None:
        """Run it in a new folder; its exit code and its words must be right."""
        folder.mkdir(parents=True, exist_ok=True)
        script = self.bin / "turnover"  # not made where the package is borrowed
        code = what.code or "from turnover.cli import main; main()"
        given = script.exists() and not what.code
        program = [script] if given else [self.bin / "python", "-c", code]
        done = subprocess.run(
            [*map(str, program), *what.words],
            cwd=folder,
            env=self.surroundings(),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        output = done.stdout + done.stderr
        if done.returncode != what.ends or what.says not in output:
            sys.exit(
                f"{self.folder.name}: {what} ended with {done.returncode}, not {what.ends}, or did "
                f"not say {what.says!r}:\n{output}"
            )


def install_everywhere(
    wheel: Path, sdist: Path, python: str, into: Path, extras: list[str]
) -> None:
    """A bare environment, then each extra alone, then the sdist."""
    bare = Room(python, into / "bare")
    bare.install(wheel)
    said = bare.pip("check")
    for number, what in enumerate(BARE):
        bare.attempt(what, into / f"bare-{number}")
    print(
        f"  bare: {len(list(bare.site.glob('*.dist-info')))} packages, {said.strip()}", flush=True
    )
    for extra in extras:
        room = Room(python, into / extra, borrows=bare.site)
        wanted = f"turnover[{extra}] @ {wheel.as_uri()}"
        if extra in RESOLVED:
            told = room.pip("install", "--dry-run", "-c", ROOT / "constraints.txt", wanted)
            moved = [w for w in told.split() if w.startswith("torch-")]
            if moved:
                sys.exit(f"{extra} would exchange torch for {moved}.")
            print(f"  {extra}: resolved only, since it {RESOLVED[extra]}", flush=True)
            continue
        room.install(wanted)
        for number, what in enumerate(EXTRAS[extra]):
            room.attempt(what, into / f"{extra}-{number}")
        print(f"  {extra}: {len(EXTRAS[extra])} tries", flush=True)
        shutil.rmtree(room.folder)
    room = Room(python, into / "sdist", borrows=bare.site)
    room.pip("install", "-q", "--no-deps", "--ignore-installed", sdist)
    room.attempt(BARE[0], into / "sdist-0")
    print("  sdist: installs", flush=True)


def cuda_of(told: str) -> list[str]:
    """Packages of CUDA in what pip says that it would install."""
    return [word for word in told.split() if word.startswith(("nvidia-", "cuda-"))]


def install_without_torch(wheel: Path, python: str, into: Path) -> None:
    """The wheel, and what its help needs: where pip's torch would bring gigabytes of CUDA."""
    room = Room(python, into / "light")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    heavy = ("torch", "numpy", "safetensors")
    room.install(*(line for line in project["dependencies"] if not line.startswith(heavy)))
    room.install("--no-deps", wheel)
    run(room.bin / "python", "-m", "compileall", "-q", room.site / "turnover")
    for number, what in enumerate(LIGHT):
        room.attempt(what, into / f"light-{number}")
    print(f"  without torch: {len(LIGHT)} tries, and every file compiles", flush=True)


@contextmanager
def workplace(keep: Path | None) -> Iterator[Path]:
    """A folder of its own for each call, so that two can go on at once."""
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="turnover-dist-") as name:
        yield Path(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="keep wheel and sdist in this folder")
    parser.add_argument("--build-only", action="store_true", help="build and look, install nothing")
    parser.add_argument("--python", action="append", help="this interpreter instead of all found")
    parser.add_argument("--extra", action="append", help="these extras instead of all")
    parser.add_argument("--cuda", action="store_true", help="install torch even with CUDA")
    parser.add_argument("--work", type=Path, help="a new folder for environments, which stays")
    said = parser.parse_args()
    with workplace(said.work) as folder:
        wheel, sdist = build(folder)
        look_into(wheel, sdist)
        for archive in (wheel, sdist):
            print(f"{archive.name}: {archive.stat().st_size:,} bytes, twice the same", flush=True)
            if said.out is not None:
                said.out.mkdir(parents=True, exist_ok=True)
                shutil.copy2(archive, said.out)
        if said.build_only:
            return
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        shipped = [e for e in project["optional-dependencies"] if e not in {"dev", "docs"}]
        assert set(shipped) == set(EXTRAS) | set(RESOLVED), "every extra has its try in _tries.py"
        for python in said.python or pythons():
            version = run(python, "-V").strip()
            print(version, flush=True)
            room = folder / version.replace(" ", "")
            told = Room(python, room / "probe").pip(
                *("install", "--dry-run", *PIP_ARGS, "-c", ROOT / "constraints.txt", wheel)
            )
            if (brought := cuda_of(told)) and not said.cuda:
                print(f"  torch would bring {len(brought)} packages of CUDA; --cuda allows it")
                install_without_torch(wheel, python, room)
                shutil.rmtree(room)
                continue
            install_everywhere(wheel, sdist, python, room, said.extra or shipped)
            if said.work is None:
                shutil.rmtree(room)


if __name__ == "__main__":
    main()
