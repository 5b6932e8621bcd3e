"""Images share layers that are equal to the last byte; no file is lost or changed by the cut."""

import contextlib
import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from rollmill.workspaces import layers
from rollmill.workspaces.engine import connect
from rollmill.workspaces.imagestore import remove, stored

STATUS = """\
Package: libc6
Status: install ok installed

Package: dash
Essential: yes
Depends: libc6 (>= 2.36), debconf | fake-conf

Package: fake-conf
Provides: debconf-2.0

Package: less
Depends: libtinfo6, pager | other-pager

Package: pager

Package: libtinfo6
Depends: libc6

Package: python3
Pre-Depends: python3-minimal (= 1)

Package: python3-minimal
Depends: libc6:any

Package: git
Depends: less, git-man
"""
LISTS = {
    "libc6:amd64": "/.\n/usr\n/usr/lib\n/lib/libc.so\n/etc/ld.so.conf\n",
    "dash": "/bin/dash\n/bin/sh\n",
    "fake-conf": "/usr/share/conf\n",
    "less": "/usr/bin/less\n",
    "libtinfo6": "/usr/lib/libtinfo.so\n",
    "python3": "/usr/bin/python3\n",
    "python3-minimal": "/usr/lib/python3/os.py\n/usr/lib/python3\n",
    "git": "/usr/bin/git\n/usr/bin/git-hard\n",
}
GROUPS = (("less",), ("python3",))
FOLDERS = ("usr", "usr/bin", "usr/lib", "usr/lib/python3", "usr/share", "etc", "empty")


@dataclass(frozen=True)
class Root:
    """A root file system of seven packages, set up at some moment."""

    folder: Path
    moment: int
    own: str
    """A file that only this image has."""
    more: str = ""
    """Packages that only this image has, as dpkg notes them."""

    def write(self) -> Path:
        path = self.folder / f"root-{self.moment}.tar"
        lists = {f"var/lib/dpkg/info/{name}.list": text for name, text in LISTS.items()}
        files = {
            "var/lib/dpkg/status": STATUS + self.more, **lists,
            "usr/lib/libc.so": "c", "usr/bin/dash": "d",
            "usr/share/conf": "f", "usr/bin/less": "l", "usr/lib/libtinfo.so": "t",
            "usr/bin/python3": "p", "usr/lib/python3/os.py": "o", "usr/bin/git": "g",
            "etc/ld.so.conf": str(self.moment), self.own: "own",
        }  # fmt: skip
        with tarfile.open(path, "w") as tar:
            for name in (".", *FOLDERS):
                self._add(tar, name, tarfile.DIRTYPE, mtime=self.moment)
            for name in ("bin", "lib"):
                self._add(tar, name, tarfile.SYMTYPE, link=f"usr/{name}", mtime=self.moment)
            self._add(tar, "usr/bin/sh", tarfile.SYMTYPE, link="dash")
            for name, text in sorted(files.items()):
                self._add(tar, name, tarfile.REGTYPE, text=text)
            self._add(tar, "usr/bin/git-hard", tarfile.LNKTYPE, link="./usr/bin/git")
        return path

    def _add(
        self, tar: tarfile.TarFile, name: str, kind: bytes, *, text: str = "", link: str = "",
        mtime: int = 7,
    ) -> None:  # fmt: skip
        info = tarfile.TarInfo(f"./{name}" if name != "." else "./")
        info.type, info.size, info.linkname, info.mtime = kind, len(text), link, mtime
        info.pax_headers = {"atime": str(self.moment), "SCHILY.xattr.user.x": "kept"}
        tar.addfile(info, io.BytesIO(text.encode()))

    def cut(self) -> list[Path]:
        folder = self.folder / f"cut-{self.moment}"
        folder.mkdir()
        return layers.cut(self.write(), GROUPS, folder)


def names(layer: Path) -> set[str]:
    with tarfile.open(layer) as tar:
        return {member.name.removeprefix("./") for member in tar if not member.isdir()}


@pytest.fixture
def two(tmp_path: Path) -> tuple[list[Path], list[Path]]:
    more = "\nPackage: other-pager\n\nPackage: pager-too\nProvides: debconf-2.0\n"
    return Root(tmp_path, 100, "opt-a").cut(), Root(tmp_path, 200, "opt-b", more).cut()


def test_what_packages_and_their_needs_brought_lies_in_their_layer(
    two: tuple[list[Path], list[Path]],
) -> None:
    base, language, rest = two[0]
    assert names(base) == {
        "usr/lib/libc.so", "usr/bin/dash", "usr/bin/sh", "usr/bin/less", "usr/lib/libtinfo.so",
        "usr/share/conf",
    }  # fmt: skip
    assert names(language) == {"usr/bin/python3", "usr/lib/python3/os.py"}
    assert {"usr/bin/git", "usr/bin/git-hard", "etc/ld.so.conf", "bin", "opt-a"} <= names(rest)


def test_lower_layers_are_equal_to_the_byte_in_both_images(
    two: tuple[list[Path], list[Path]],
) -> None:
    first, second = ([path.read_bytes() for path in paths] for paths in two)
    assert first[:2] == second[:2]
    assert first[2] != second[2]


def test_every_member_is_in_one_layer_as_it_was(tmp_path: Path) -> None:
    root = Root(tmp_path, 100, "opt-a")
    with tarfile.open(root.write()) as tar:
        expected = {m.name: (m.type, m.mode, m.size, m.linkname) for m in tar if m.name != "."}
    found = []
    for layer in root.cut():
        with tarfile.open(layer) as tar:
            found += [(m.name, (m.type, m.mode, m.size, m.linkname)) for m in tar]
            assert all("atime" not in m.pax_headers for m in tar)
            assert all(m.pax_headers["SCHILY.xattr.user.x"] == "kept" for m in tar)
    assert len(found) == len(expected)
    assert dict(found) == expected


def test_an_archive_names_what_it_holds_by_its_content(
    two: tuple[list[Path], list[Path]],
) -> None:
    whole = b"".join(layers.archive(two[0], "rollmill/x:1", {"rollmill": "1"}))
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        held = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    (image,) = json.loads(held["manifest.json"])
    config = json.loads(held[image["Config"]])
    assert image["RepoTags"] == ["rollmill/x:1"]
    assert f"{hashlib.sha256(held[image['Config']]).hexdigest()}.json" == image["Config"]
    digests = [f"sha256:{hashlib.sha256(held[name]).hexdigest()}" for name in image["Layers"]]
    assert config["rootfs"]["diff_ids"] == digests
    assert (config["os"], config["architecture"]) == ("linux", layers.architecture())


@pytest.mark.docker
def test_an_engine_keeps_what_is_shared_once(two: tuple[list[Path], list[Path]]) -> None:
    client, _ = connect()
    label = f"rollmill-test-layers-{os.getpid()}"
    tags = [f"{label}/{name}:1" for name in ("a", "b")]
    with contextlib.closing(client):
        for tag, paths in zip(tags, two, strict=True):
            parts = layers.archive(paths, tag, {label: "1"})
            client.load_image(parts)  # type: ignore[no-untyped-call]
        found = stored(client, label=label)
        chains = [client.inspect_image(tag)["RootFS"]["Layers"] for tag in tags]  # type: ignore[no-untyped-call]
        gone = remove(client, found)
    assert chains[0][:2] == chains[1][:2]
    assert chains[0][2] != chains[1][2]
    assert {(one.shared_bytes > 0, one.unique_bytes > 0) for one in found} == {(True, True)}
    assert {one.tag for one in gone} == set(tags)
