"""A root file system cut into layers that images share: base, language, and an image's own.

A layer holds the files of the packages of one group and of what these need. It is the same to the
last byte in every image built from the same packages; an engine keeps it once. What cannot be
told to belong to a group, or may differ, lies in the uppermost layer. Loads nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import platform
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

INFO = "var/lib/dpkg/info/"
STATUS = "var/lib/dpkg/status"
MERGED = ("bin", "sbin", "lib", "lib64")
"""Links into /usr at the root; packages may still name files by them."""
OWN = ("etc/", "var/", "dev/", "proc/", "sys/", "run/", "tmp/")
"""Places whose files change when a system is set up."""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
LONG_AGO = "1970-01-01T00:00:00Z"
CHUNK = 1 << 20


def architecture() -> str:
    """This machine's, as engines call it."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())


def cut(root: Path, groups: Sequence[Sequence[str]], folder: Path) -> list[Path]:
    """Cut a tar of a root file system into one tar a group, lowest first, and one for the rest."""
    paths = [folder / f"layer-{number}.tar" for number in range(len(groups) + 1)]
    with contextlib.ExitStack() as stack:
        tar = stack.enter_context(tarfile.open(root))
        members = [member for member in tar if _name(member) != "."]
        places = _places(tar, members, groups)
        layers = [
            stack.enter_context(tarfile.open(path, "w", format=tarfile.PAX_FORMAT))
            for path in paths
        ]
        for member in members:
            place = places[_name(member)]
            content = tar.extractfile(member) if member.isfile() else None
            layers[place].addfile(_plain(member, lower=place < len(groups)), content)
    return paths


def archive(layers: Sequence[Path], tag: str, labels: Mapping[str, str]) -> Iterator[bytes]:
    """An image made of layers, as an engine loads it, in parts."""
    digests = [_digest(layer) for layer in layers]
    config = {
        "architecture": architecture(),
        "os": "linux",
        "created": LONG_AGO,
        "config": {"Labels": dict(labels)},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": LONG_AGO, "created_by": layer.name} for layer in layers],
    }
    text = json.dumps(config, sort_keys=True).encode()
    name = f"{hashlib.sha256(text).hexdigest()}.json"
    names = [f"{digest}.tar" for digest in digests]
    manifest = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": names}]).encode()
    for part, content in ((name, text), ("manifest.json", manifest)):
        yield from _entry(part, len(content), io.BytesIO(content))
    for part, layer in dict(zip(names, layers, strict=True)).items():
        with layer.open("rb") as file:
            yield from _entry(part, layer.stat().st_size, file)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _entry(name: str, size: int, content: IO[bytes]) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size = size
    yield info.tobuf()
    while chunk := content.read(CHUNK):
        yield chunk
    yield bytes(-size % tarfile.BLOCKSIZE)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./")


def _plain(member: tarfile.TarInfo, *, lower: bool) -> tarfile.TarInfo:
    """Without what differs from one set-up to the next, where others are to have the same."""
    kept = {key: text for key, text in member.pax_headers.items() if "xattr" in key}
    changed = member.replace(deep=False)
    changed.pax_headers = kept
    if lower:  # folders and links are made at set-up, files carry the time of their package
        changed.mtime = int(member.mtime) if member.isreg() or member.islnk() else 0
    return changed


def _places(
    tar: tarfile.TarFile, members: Sequence[tarfile.TarInfo], groups: Sequence[Sequence[str]]
) -> dict[str, int]:
    """Name -> number of its layer. A folder lies in the lowest that has something of it."""
    owner = _owners(tar, members, groups)
    top = len(groups)
    places: dict[str, int] = {}
    for member in members:
        name = _name(member)
        if member.islnk():  # beside what it links to
            places[name] = places[member.linkname.removeprefix("./")]
        elif not member.isdir():
            places[name] = top if name.startswith(OWN) else owner.get(name, top)
    below: dict[str, int] = {}
    for name, place in places.items():
        for parent in Path(name).parents:
            below[str(parent)] = min(place, below.get(str(parent), top))
    for member in members:
        if member.isdir():
            places[_name(member)] = below.get(_name(member), top)
    return places


def _owners(
    tar: tarfile.TarFile, members: Sequence[tarfile.TarInfo], groups: Sequence[Sequence[str]]
) -> dict[str, int]:
    """Name of a file -> number of the group whose packages, or what these need, brought it."""
    files = {_name(member): member for member in members}
    merged = tuple(f"{name}/" for name in MERGED if name in files and files[name].issym())
    packages = _Packages(_text(tar, files[STATUS]))
    found: dict[str, int] = {}
    taken: set[str] = set()
    for number, group in enumerate(groups):
        roots = [*group, *(packages.essential if number == 0 else ())]
        for package in packages.closure(roots) - taken:
            taken.add(package)
            for arch in ("", f":{ARCHITECTURES.get(platform.machine(), '')}"):
                if listing := files.get(f"{INFO}{package}{arch}.list"):
                    for line in _text(tar, listing).splitlines():
                        name = line.lstrip("/")
                        found[f"usr/{name}" if name.startswith(merged) else name] = number
    return found


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    content = tar.extractfile(member)
    assert content is not None, "dpkg's lists are regular files"
    return content.read().decode()


class _Packages:
    """What is installed, and what of it needs what."""

    def __init__(self, status: str) -> None:
        self.essential: list[str] = []
        self._needs: dict[str, list[list[str]]] = {}
        self._givers: dict[str, str] = {}
        """Virtual name -> a package that stands for it, always the same one."""
        for stanza in status.split("\n\n"):
            fields = dict(re.findall(r"^([\w-]+): *(.*)$", stanza, flags=re.M))
            if (name := fields.get("Package")) is None:
                continue
            if fields.get("Essential") == "yes" or name == "apt":  # what mmdebstrap begins with
                self.essential.append(name)
            wanted = f"{fields.get('Depends', '')},{fields.get('Pre-Depends', '')}"
            self._needs[name] = _clauses(wanted)
            for (given,) in _clauses(fields.get("Provides", "")):
                self._givers[given] = min(name, self._givers.get(given, name))

    def closure(self, roots: Sequence[str]) -> set[str]:
        """These packages and all that they need; of alternatives, the first that is installed.

        One more package in another image changes nothing, though it could stand in for one.
        """
        found: set[str] = set()
        waiting = [[root] for root in roots]
        while waiting:
            package = self._first(waiting.pop())
            if package and package not in found:
                found.add(package)
                waiting += self._needs[package]
        return found

    def _first(self, alternatives: Sequence[str]) -> str:
        for name in alternatives:
            if name in self._needs:
                return name
        return next((self._givers[name] for name in alternatives if name in self._givers), "")


def _clauses(relation: str) -> list[list[str]]:
    """Each thing in a relation as its alternatives; without versions and architectures."""
    clauses = [clause.split("|") for clause in relation.split(",") if clause.strip()]
    return [[re.split(r"[\s:(]", name.strip())[0] for name in clause] for clause in clauses]
