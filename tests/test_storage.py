"""Storage: a folder and a real bucket behave the same; passing faults are survived, lasting ones are one line."""

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from s3_server import S3Server, run_faulty_proxy

from affectflow import s3 as s3_module
from affectflow.errors import SettingsError, StorageError, StorageLimitError, StorageMissingError
from affectflow.s3 import S3Storage
from affectflow.storage import Entry, Storage, file_exists, local_file, open_storage
from pipelines.digests import add_digests


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return open_storage(str(tmp_path / "root"))
    request.getfixturevalue("s3")
    return open_storage(f"s3://open/{request.node.name.partition('[')[0]}")


@pytest.fixture
def few_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "ATTEMPTS", 3)
    monkeypatch.setattr(s3_module, "LONGEST_PAUSE", 0.1)


def test_what_is_written_is_read_listed_and_deleted(place: Storage) -> None:
    assert place.entries() == place.files() == place.folders() == []
    assert not place.exists("a/one")
    place.write("a/one", b"1")
    place.write("a/deep/two", b"22")
    place.write("top", b"")
    place.write("a/one", b"one")
    assert place.read("a/one") == b"one"
    assert place.read("top") == b""
    assert place.entries() == [Entry("a/deep/two", 2), Entry("a/one", 3), Entry("top", 0)]
    assert place.entries("a/deep") == [Entry("a/deep/two", 2)]
    assert (place.folders(), place.files()) == (["a"], ["top"])
    assert (place.folders("a"), place.files("a")) == (["deep"], ["one"])
    assert place.exists("a/one")
    assert not place.exists("a")
    place.delete("a")
    place.delete("a")
    assert place.entries() == [Entry("top", 0)]


def test_a_file_that_is_replaced_while_it_is_read_is_the_old_one_or_the_new_one(place: Storage) -> None:
    place.write("file", b"old " * 1000)
    with place.open("file") as stream:
        place.write("file", b"new!" * 1000)
        assert stream.read() == b"old " * 1000
    assert place.read("file") == b"new!" * 1000


def test_files_are_put_and_got_whole(place: Storage, tmp_path: Path) -> None:
    content = bytes(range(256)) * 100_000  # more than one range
    (tmp_path / "file").write_bytes(content)
    place.put("sub/file", tmp_path / "file")
    place.get("sub/file", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content == place.read("sub/file")
    with place.open("sub/file") as stream:
        assert stream.read(5) == content[:5]
        assert stream.read() == content[5:]
    with pytest.raises(StorageLimitError, match="25,600,000 bytes"):
        place.read("sub/file", limit=1000)


def test_a_missing_file_is_named_in_one_line(place: Storage, tmp_path: Path) -> None:
    for act in (
        lambda: place.read("nothing"),
        lambda: place.open("nothing"),
        lambda: place.get("nothing", tmp_path / "x"),
    ):
        with pytest.raises(StorageMissingError, match="nothing") as error:
            act()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("root", ["s3://", "s3:///prefix", "gs://bucket", ""])
def test_other_addresses_are_refused(root: str) -> None:
    with pytest.raises(SettingsError, match="s3://bucket/prefix"):
        open_storage(root)


FILL_A_DISK = """
import sys
from affectflow.errors import StorageError
from affectflow.storage import open_storage
place = open_storage(sys.argv[1])
place.write("file", b"old")
try:
    place.write("file", b"new" * 100_000)
except StorageError as error:
    print(error)
print(place.read("file").decode(), [entry.name for entry in place.entries()])
"""


def test_a_write_to_a_full_disk_is_one_line_and_keeps_the_old_file(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=100k none '{tmp_path}'"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", FILL_A_DISK, tmp_path],
        capture_output=True,
        text=True,
    )
    error, rest = done.stdout.splitlines()
    assert "full disk" in error
    assert rest == "old ['file']"


def test_a_forbidden_or_missing_bucket_and_wrong_keys_are_one_line(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match="no such bucket"):
        S3Storage("s3://nowhere/a").entries()
    with pytest.raises(StorageError, match="no such bucket"):
        S3Storage("s3://nowhere/a").read("b")
    for name, value in s3.environment("reader").items():
        monkeypatch.setenv(name, value)
    assert S3Storage("s3://open/nothing-here").entries() == []
    for act in (
        lambda: S3Storage("s3://closed/secret").entries(),
        lambda: S3Storage("s3://closed/secret").read("labels.csv"),
        lambda: S3Storage("s3://open/x").write("y", b""),
    ):
        with pytest.raises(StorageError, match="forbidden") as error:
            act()
        assert "\n" not in str(error.value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(StorageError, match="forbidden") as error:
        S3Storage("s3://open/x").read("y")
    assert "another" not in str(error.value)


@pytest.mark.usefixtures("few_attempts")
def test_an_unreachable_server_is_one_line(monkeypatch: pytest.MonkeyPatch, s3: S3Server) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9") as error:
        S3Storage("s3://open/x").read("y")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["500", "reset", "half"])
def test_passing_faults_are_survived(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, kind: str, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 100_000
    seen: Counter[tuple[str, str]] = Counter()

    def first_two(method: str, path: str) -> str | None:
        seen[method, path] += 1
        return kind if seen[method, path] <= 2 else None

    (tmp_path / "file").write_bytes(content)
    with run_faulty_proxy(s3, first_two) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        place = S3Storage(f"s3://open/faults-{kind}")
        place.write("small", b"small")
        place.put("large", tmp_path / "file")
        assert place.read("small") == b"small"
        assert place.read("large") == content
        assert [entry.name for entry in place.entries()] == ["large", "small"]
    assert max(seen.values()) >= 3


@pytest.mark.usefixtures("few_attempts")
@pytest.mark.parametrize("kind", ["500", "reset", "half"])
def test_lasting_faults_end_in_one_line(s3: S3Server, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    S3Storage("s3://open/lasting").write("file", b"content")
    tries: Counter[str] = Counter()

    def always(method: str, path: str) -> str | None:
        tries[method] += 1
        return kind

    with run_faulty_proxy(s3, always) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(StorageError) as error:
            S3Storage("s3://open/lasting").read("file")
    assert "\n" not in str(error.value)
    assert 3 <= tries["GET"] <= 9


def test_an_object_replaced_while_it_is_read_is_an_error(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "PART_BYTES", 1000)
    place = S3Storage("s3://open/replaced")
    place.write("file", b"a" * 50_000)
    with place.open("file") as stream:
        place.write("file", b"b" * 50_000)
        with pytest.raises(StorageError, match="replaced"):
            stream.read()


def test_the_digest_of_a_source_in_s3_follows_its_objects(s3: S3Server) -> None:
    place = S3Storage("s3://open/digest")
    place.write("a", b"one")
    place.write("sub/b", b"two")
    S3Storage("s3://open/digest-other").write("c", b"not part of it")

    def digest() -> str:
        return str(add_digests({"data_source": "s3://open/digest"})["data_source_digest"])

    before = digest()
    assert digest() == before
    place.write("a", b"six")
    changed = digest()
    assert changed != before
    place.delete("sub")
    assert digest() not in (before, changed)


def test_a_file_of_weights_in_s3_has_the_digest_of_its_bytes_and_is_copied_under_its_name(s3: S3Server) -> None:
    S3Storage("s3://open/weights").write("w.safetensors", b"weights")
    address = "s3://open/weights/w.safetensors"
    assert (
        add_digests({"train_weights": address})["train_weights_digest"] == hashlib.sha256(b"weights").hexdigest()
    )
    assert file_exists(address) and not file_exists("s3://open/weights/other")
    with local_file(address) as copy:
        assert (copy.name, copy.read_bytes()) == ("w.safetensors", b"weights")
    assert not copy.exists()
    with pytest.raises(StorageError, match="no such object"), local_file("s3://open/weights/other"):
        pass
    with pytest.raises(SettingsError, match="wanted s3://bucket/key"):
        file_exists("s3://open")


def test_a_file_that_vanishes_while_a_folder_is_listed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stays").write_bytes(b"123")
    (tmp_path / "vanishes").write_bytes(b"1")
    is_file = Path.is_file

    def delete_after_a_look(path: Path) -> bool:
        found = is_file(path)
        if path.name == "vanishes":
            path.unlink()
        return found

    monkeypatch.setattr(Path, "is_file", delete_after_a_look)
    assert open_storage(str(tmp_path)).entries() == [Entry("stays", 3)]
