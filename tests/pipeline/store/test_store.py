"""The store: what is in it is whole, right, and there once, whatever happens around it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples

from iree_pilot.pipeline.errors import EnvironmentFault
from iree_pilot.pipeline.store import sealed
from iree_pilot.pipeline.store.store import Damaged, Store, Usage, cache_directory, data_directory

KEY = Store.key("llama-fp8", ["--iree-hal-target-device=local"])
CONTENTS = {"module.vmfb": bytes(range(256)) * 40, "phases/m.1.input.mlir": b"module {}\n" * 300}


def fill(directory: Path, contents: dict[str, bytes] = CONTENTS) -> None:
    for name, data in contents.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)


def read(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sealed.files(directory)
        if path.name != sealed.MANIFEST
    }


def leftovers(store: Store) -> list[Path]:
    return list((store.root / ".tmp").glob("*"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


class TestKeys:
    def test_equal_contents_have_equal_keys(self) -> None:
        assert Store.key({"a": 1, "b": 2}, (1, 2)) == Store.key({"b": 2, "a": 1}, [1, 2])
        assert Store.key(Usage(kind="x", entries=1, bytes=2)) == Store.key(
            Usage(kind="x", entries=1, bytes=2)
        )

    @pytest.mark.parametrize(
        ("one", "other"),
        [(("ab",), ("a", "b")), ((1,), ("1",)), ((["-O2"],), (["-O3"],)), ((None,), ("",))],
    )
    def test_different_contents_have_different_keys(
        self, one: tuple[object, ...], other: tuple[object, ...]
    ) -> None:
        assert Store.key(*one) != Store.key(*other)

    def test_a_path_is_not_content(self) -> None:
        with pytest.raises(TypeError):
            Store.key(Path("weights.irpa"))

    @pytest.mark.parametrize(("kind", "key"), [("../x", KEY), ("", KEY), ("compile", "../../x")])
    def test_a_name_that_leads_out_of_the_store_is_refused(
        self, store: Store, kind: str, key: str
    ) -> None:
        with pytest.raises(ValueError, match="not a kind and a key"):
            store.open(kind, key)


class TestEntries:
    def test_what_was_built_is_found(self, store: Store) -> None:
        assert store.open("compile", KEY) is None
        with store.build("compile", KEY) as directory:
            fill(directory)
        found = store.open("compile", KEY)
        assert found is not None
        assert read(found) == CONTENTS
        assert leftovers(store) == []

    def test_obtain_makes_once(self, store: Store) -> None:
        made: list[Path] = []

        def make(directory: Path) -> None:
            made.append(directory)
            fill(directory)

        first = store.obtain("compile", KEY, make)
        assert store.obtain("compile", KEY, make) == first
        assert len(made) == 1
        assert read(first) == CONTENTS

    def test_a_build_that_raises_leaves_nothing(self, store: Store) -> None:
        with pytest.raises(KeyboardInterrupt), store.build("compile", KEY) as directory:
            fill(directory)
            raise KeyboardInterrupt
        assert store.open("compile", KEY) is None
        assert leftovers(store) == []

    def test_the_first_of_two_sound_entries_stays(self, store: Store) -> None:
        with store.build("compile", KEY) as slow:
            fill(slow, {"module.vmfb": b"second"})
            with store.build("compile", KEY) as fast:
                fill(fast, {"module.vmfb": b"first"})
        found = store.open("compile", KEY)
        assert found is not None
        assert read(found) == {"module.vmfb": b"first"}
        assert leftovers(store) == []

    def test_a_sound_entry_replaces_a_damaged_one(self, store: Store) -> None:
        with store.build("compile", KEY) as directory:
            fill(directory)
            shutil.copytree(directory, store.root / "compile" / KEY[:2] / KEY)  # no manifest
        found = store.open("compile", KEY)
        assert found is not None
        assert read(found) == CONTENTS

    @pytest.mark.parametrize("name", [sealed.MANIFEST, "link", "fifo"])
    def test_only_regular_files_can_be_kept(self, store: Store, name: str) -> None:
        with (
            pytest.raises(ValueError, match=f"cannot hold {name}"),
            store.build("compile", KEY) as directory,
        ):
            if name == "link":
                (directory / name).symlink_to("/etc/hostname")
            elif name == "fifo":
                os.mkfifo(directory / name)
            else:
                (directory / name).touch()
        assert store.open("compile", KEY) is None

    def test_opening_a_compilation_is_quick(self, store: Store) -> None:
        dump = os.urandom(30 * 2**20 // 12)
        with store.build("compile", KEY) as directory:
            fill(directory, {f"module.{n}.mlir": dump for n in range(12)})
        best = min(timed(lambda: store.open("compile", KEY)) for _ in range(5))
        assert best < 0.2  # 0.02 s with SHA instructions, 0.1 s without


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


@st.composite
def damages(draw: st.DrawFn) -> tuple[str, Callable[[Path], None]]:
    """A file of an entry, and something that happens to it."""
    name = draw(st.sampled_from([*CONTENTS, sealed.MANIFEST]))
    where = draw(st.floats(0, 1, exclude_max=True))
    mask = draw(st.integers(1, 255))
    kind = draw(st.sampled_from(["flip", "truncate", "append", "delete", "swap", "to directory"]))

    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        at = int(where * len(data))
        if kind == "flip":
            data[at] ^= mask
            with path.open("r+b") as file:
                file.write(data)
        elif kind == "truncate":
            os.truncate(path, at)
        elif kind == "append":
            with path.open("ab") as file:
                file.write(bytes([mask]))
        elif kind == "swap":
            other = path.with_name("other")
            other.write_bytes(bytes(reversed(data)))
            other.rename(path)
        else:
            path.unlink()
            if kind == "to directory":
                path.mkdir()

    return name, damage


class TestDamage:
    """A damaged entry is removed and reported as absent; it is never used."""

    @settings(max_examples=examples(1.5))
    @given(damage=damages(), always_hashed=st.sampled_from([0, 4 * 2**20]))
    def test_no_damage_is_ever_used(
        self, damage: tuple[str, Callable[[Path], None]], always_hashed: int
    ) -> None:
        name, happen = damage
        with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as root:
            patch.setattr(sealed, "_ALWAYS_HASHED_BYTES", always_hashed)
            patch.setattr(os, "fsync", lambda descriptor: None)  # for speed
            store = Store(Path(root))
            place = store.obtain("compile", KEY, fill)
            happen(place / name)
            found = store.open("compile", KEY)
            if found is None:
                assert not place.exists()
            else:
                assert name == sealed.MANIFEST, "only the manifest has bytes without meaning"
                assert read(found) == CONTENTS
            assert read(store.obtain("compile", KEY, fill)) == CONTENTS

    @pytest.mark.parametrize("name", ["extra.mlir", "phases/extra.mlir"])
    def test_a_file_that_nobody_built_is_damage(self, store: Store, name: str) -> None:
        place = store.obtain("compile", KEY, fill)
        (place / name).write_text("module {}")
        assert store.open("compile", KEY) is None

    def test_an_entry_in_the_place_of_another_is_damage(self, store: Store) -> None:
        place = store.obtain("compile", KEY, fill)
        other = Store.key("another")
        shutil.copytree(place, store.root / "compile" / other[:2] / other)
        assert store.open("compile", other) is None

    def test_an_entry_that_somebody_mends_meanwhile_stays(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place = store.obtain("compile", KEY, fill)
        examine = sealed.examine
        seen = iter([sealed.Examination("it was damaged a moment ago")])
        monkeypatch.setattr(
            sealed,
            "examine",
            lambda directory, label, full=False: (
                next(seen, None) or examine(directory, label, full=full)
            ),
        )
        assert store.open("compile", KEY) is None
        assert store.open("compile", KEY) == place

    def test_trouble_with_reading_is_not_damage(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place = store.obtain("compile", KEY, fill)

        def digest(path: Path) -> str:
            raise OSError(errno.EMFILE, "Too many open files", str(path))

        with monkeypatch.context() as patch, pytest.raises(EnvironmentFault, match="Too many open"):
            patch.setattr(sealed, "digest", digest)
            store.open("compile", KEY)
        assert store.open("compile", KEY) == place


class TestLargeFiles:
    """Large files are not hashed at each read, and still no change of them goes unseen."""

    @pytest.fixture(autouse=True)
    def every_file_is_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sealed, "_ALWAYS_HASHED_BYTES", 0)

    @pytest.fixture
    def settled(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> Path:
        """An entry whose last hash is long enough after its last change to be relied on."""
        later = time.time_ns() + 10**9
        monkeypatch.setattr(time, "time_ns", lambda: later)
        place = store.obtain("weights", KEY, fill)
        last = max(path.stat().st_ctime_ns for path in sealed.files(place))
        tick = store.root / "tick"
        while not tick.exists() or tick.stat().st_ctime_ns <= last:
            tick.write_bytes(b"")
        return place

    @pytest.fixture
    def hashed(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        seen: list[str] = []
        digest = sealed.digest

        def recording(path: Path) -> str:
            seen.append(path.name)
            return digest(path)

        monkeypatch.setattr(sealed, "digest", recording)
        return seen

    def test_unchanged_ones_are_not_hashed(
        self, store: Store, settled: Path, hashed: list[str]
    ) -> None:
        assert store.open("weights", KEY) == settled
        assert hashed == []

    def test_a_change_that_hides_its_time_is_seen(self, store: Store, settled: Path) -> None:
        module = settled / "module.vmfb"
        before = module.stat()
        with module.open("r+b") as file:
            file.write(b"\xff")
        os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert store.open("weights", KEY) is None

    def test_a_touched_one_is_hashed_once_and_kept(
        self, store: Store, settled: Path, hashed: list[str]
    ) -> None:
        os.utime(settled / "module.vmfb")
        assert store.open("weights", KEY) == settled
        assert store.open("weights", KEY) == settled
        assert hashed == ["module.vmfb"]

    def test_a_just_built_one_is_hashed_again(self, store: Store, hashed: list[str]) -> None:
        place = store.obtain("weights", KEY, fill)
        hashed.clear()
        assert store.open("weights", KEY) == place
        assert sorted(hashed) == ["m.1.input.mlir", "module.vmfb"]

    def test_verify_hashes_them_all(self, store: Store, settled: Path, hashed: list[str]) -> None:
        assert store.verify() == ()
        assert sorted(hashed) == ["m.1.input.mlir", "module.vmfb"]

    def test_verify_finds_what_no_time_tells(
        self, store: Store, settled: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Decay of the disk: other bytes under the same inode, size and times."""
        manifest = msgspec.json.decode((settled / sealed.MANIFEST).read_bytes())
        manifest["files"][0]["sha256"] = "0" * 64
        (settled / sealed.MANIFEST).write_bytes(msgspec.json.encode(manifest))
        assert store.open("weights", KEY) == settled
        assert store.verify() == (
            Damaged(
                kind="weights",
                key=KEY,
                why="module.vmfb does not have the SHA-256 of manifest.json",
            ),
        )
        assert store.open("weights", KEY) is None


class TestInfoAndGc:
    def entry(self, store: Store, name: str, *, last_used: float, kind: str = "compile") -> Path:
        place = store.obtain(kind, Store.key(name), lambda d: fill(d, {"module.vmfb": bytes(5000)}))
        os.utime(place / sealed.MANIFEST, (last_used, last_used))
        return place

    @pytest.fixture
    def places(self, store: Store) -> dict[str, Path]:
        """Entries that were used 3, 2 and 1 hours ago, by nobody now."""
        now = time.time()
        user = Store(store.root)
        return {
            name: self.entry(user, name, last_used=now - hours * 3600)
            for name, hours in [("old", 3), ("middle", 2), ("new", 1)]
        }

    def there(self, places: dict[str, Path]) -> set[str]:
        return {name for name, place in places.items() if place.exists()}

    def test_info_counts_entries_and_bytes_by_kind(self, store: Store) -> None:
        self.entry(store, "a", last_used=0)
        self.entry(store, "b", last_used=0)
        self.entry(store, "a", last_used=0, kind="program")
        compiled, program = store.info()
        assert (compiled.kind, compiled.entries) == ("compile", 2)
        assert (program.kind, program.entries) == ("program", 1)
        assert program.bytes == sum(
            path.stat().st_size for path in (store.root / "program").rglob("*") if path.is_file()
        )
        assert compiled.bytes == 2 * program.bytes

    def test_an_empty_store_has_nothing(self, store: Store) -> None:
        assert store.info() == ()
        assert store.verify() == ()
        assert store.gc(max_bytes=0).entries == 0

    def test_gc_keeps_what_fits_and_removes_the_oldest(
        self, store: Store, places: dict[str, Path]
    ) -> None:
        size = store.info()[0].bytes // 3
        collected = store.gc(max_bytes=2 * size + 100)
        assert (collected.entries, collected.bytes) == (1, size)
        assert self.there(places) == {"middle", "new"}

    def test_gc_removes_what_is_older(self, store: Store, places: dict[str, Path]) -> None:
        assert store.gc(older_than=1.5 * 3600).entries == 2
        assert self.there(places) == {"new"}

    def test_opening_makes_an_entry_young(self, store: Store, places: dict[str, Path]) -> None:
        assert Store(store.root).open("compile", Store.key("old"))
        assert store.gc(older_than=1.5 * 3600).entries == 1
        assert self.there(places) == {"old", "new"}

    def test_gc_without_a_limit_removes_no_entry(
        self, store: Store, places: dict[str, Path]
    ) -> None:
        assert store.gc().entries == 0
        assert self.there(places) == {"old", "middle", "new"}

    def test_gc_leaves_what_is_in_use(self, store: Store, places: dict[str, Path]) -> None:
        reader = Store(store.root)
        assert reader.open("compile", Store.key("old"))
        collected = store.gc(max_bytes=0)
        assert (collected.entries, collected.in_use) == (2, 1)
        assert self.there(places) == {"old"}
        del reader
        assert store.gc(max_bytes=0).entries == 1

    def test_gc_leaves_what_is_locked(self, store: Store, places: dict[str, Path]) -> None:
        with store.lock("compile", Store.key("middle")):
            assert store.gc(max_bytes=0).in_use == 1
        assert self.there(places) == {"middle"}


# What the child processes of the tests below share.
CHILD = """
import os, sys
from pathlib import Path
from iree_pilot.pipeline.store.store import Store
store, key = Store(Path(sys.argv[1])), sys.argv[2]
def say(text):
    print(text, flush=True)
def make(directory):
    (directory / "module.vmfb").write_bytes(b"x" * 10000)
    say("making")
    sys.stdin.readline()
    (directory / "late.txt").write_text("late")
"""


class Child:
    """Another process that runs CHILD and `code`."""

    def __init__(self, root: Path, code: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD + code, root, KEY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hears(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def goes_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def ends(self) -> int:
        self.process.communicate(timeout=30)
        return self.process.returncode


OBTAIN = 'store.obtain("compile", key, make, on_wait=lambda: say("waiting")); say("has it")'


class TestManyProcesses:
    def test_one_builds_the_others_wait_and_find(self, store: Store) -> None:
        first = Child(store.root, OBTAIN)
        assert first.hears() == "making"
        others = [Child(store.root, OBTAIN) for _ in range(3)]
        assert [other.hears() for other in others] == ["waiting"] * 3
        assert store.open("compile", KEY) is None
        first.goes_on()
        assert [child.hears() for child in [first, *others]] == ["has it"] * 4
        assert [child.ends() for child in [first, *others]] == [0] * 4
        assert leftovers(store) == []

    def test_a_killed_builder_is_followed_by_the_next(self, store: Store) -> None:
        first = Child(store.root, OBTAIN)
        assert first.hears() == "making"
        second = Child(store.root, OBTAIN)
        assert second.hears() == "waiting"
        first.process.kill()
        assert second.hears() == "making"
        second.goes_on()
        assert second.hears() == "has it"
        assert (first.ends(), second.ends()) == (-signal.SIGKILL, 0)
        assert leftovers(store) == [], "the next build clears what the dead one left"

    def test_gc_clears_only_what_dead_builders_left(self, store: Store) -> None:
        dead, alive = (
            Child(store.root, f'store.obtain("{kind}", key, make)') for kind in ("dead", "alive")
        )
        assert dead.hears() == alive.hears() == "making"
        dead.process.kill()
        dead.ends()
        assert len(leftovers(store)) == 2
        store.gc(max_bytes=0)
        assert len(leftovers(store)) == 1
        alive.goes_on()
        assert alive.ends() == 0
        assert store.open("alive", KEY)

    def test_an_interrupted_wait_ends(self, store: Store) -> None:
        with store.lock("compile", KEY):
            waiting = Child(store.root, OBTAIN)
            assert waiting.hears() == "waiting"
            waiting.process.send_signal(signal.SIGINT)
            assert waiting.ends() != 0

    def test_gc_leaves_what_another_process_uses(self, store: Store) -> None:
        place = Store(store.root).obtain("compile", KEY, fill)
        user = Child(store.root, 'store.open("compile", key); say("open"); sys.stdin.readline()')
        assert user.hears() == "open"
        assert store.gc(max_bytes=0).in_use == 1
        assert read(place) == CONTENTS
        user.process.kill()
        user.ends()
        assert store.gc(max_bytes=0).entries == 1

    def test_a_builder_killed_at_any_step_shows_nothing_half_written(self, store: Store) -> None:
        """A child is killed at its first file operation, the next one at its second, and so on."""
        code = """
import itertools, signal
survived = False
for step in itertools.count(1):
    child = os.fork()
    if not child:
        left = [step]
        def hook(event, arguments):
            left[0] -= event.startswith(("open", "os.", "shutil.", "fcntl."))
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        with Store(Path(sys.argv[1])).build("compile", key) as directory:
            (directory / "a").write_bytes(b"a" * 1000)
            (directory / "b").mkdir()
            (directory / "b" / "c").write_bytes(b"c" * 1000)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    reader = Store(Path(sys.argv[1]))
    place = reader.root / "compile" / key[:2] / key
    was_there = place.exists()
    found = reader.open("compile", key)
    assert (found is not None) == was_there, "an entry that shows is sound"
    reader.gc()
    assert not list(reader.root.glob(".tmp/*"))
    del reader
    Store(Path(sys.argv[1])).gc(max_bytes=0)
    assert not place.exists()
    if os.waitstatus_to_exitcode(status) == 0:
        say(str(step))
        break
"""
        child = Child(store.root, code)
        steps = int(child.hears() or 0)
        assert child.ends() == 0
        assert steps > 20

    @pytest.mark.slow
    def test_readers_builders_and_gc_at_once_see_only_whole_entries(self, store: Store) -> None:
        """Each child damages, again and again, an entry that only it reads."""
        code = """
import random
from iree_pilot.pipeline.store.sealed import files
seed = sys.stdin.readline()
random.seed(seed)
for step in range(60):
    store = Store(Path(sys.argv[1]))
    def make(directory):
        for name in "abc":
            (directory / name).write_text(key * 50)
    for key in store.key(random.randrange(3)), store.key(seed):
        place = store.obtain("compile", key, make)
        texts = {f.name: f.read_text() for f in files(place) if f.name in "abc"}
        assert texts == dict.fromkeys("abc", key * 50)
    if step % 3 == 0:
        (place / "b").write_text("damage")
    if step % 5 == 0:
        store.gc(max_bytes=0)
    if step % 7 == 0:
        store.verify()
"""
        children = [Child(store.root, code) for _ in range(3)]
        for seed, child in enumerate(children):
            assert child.process.stdin is not None
            child.process.stdin.write(f"{seed}\n")
            child.process.stdin.flush()
        assert [child.ends() for child in children] == [0] * 3


class TestFullDisk:
    def full(self, store: Store) -> pytest.RaisesExc[EnvironmentFault]:
        return pytest.raises(EnvironmentFault, match=f"in {store.root}: No space left on device")

    def test_a_builder_that_meets_it_leaves_nothing(self, store: Store) -> None:
        with self.full(store) as caught, store.build("compile", KEY) as directory:
            (directory / "module.vmfb").symlink_to("/dev/full")
            (directory / "module.vmfb").write_bytes(bytes(10000))
        assert "iree-pilot cache gc" in caught.value.advice
        assert "IREE_PILOT_CACHE" in caught.value.advice
        assert store.open("compile", KEY) is None
        assert leftovers(store) == []

    def test_a_library_that_meets_it_is_understood(self, store: Store) -> None:
        with self.full(store), store.build("compile", KEY):
            raise RuntimeError("I/O error: No space left on device (os error 28)")

    @pytest.mark.parametrize("call", range(6))
    def test_it_may_show_at_any_sync(
        self, store: Store, call: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = iter(range(100))

        def fsync(descriptor: int) -> None:
            if next(calls) == call:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            with self.full(store), store.build("compile", KEY) as directory:
                fill(directory)
        assert leftovers(store) == []
        assert read(store.obtain("compile", KEY, fill)) == CONTENTS

    def test_a_real_small_disk(self, tmp_path: Path) -> None:
        code = """
import errno
from iree_pilot.pipeline.errors import EnvironmentFault
def check(size):
    try:
        with store.build("compile", key) as directory:
            for n in range(4):
                (directory / f"{n}.mlir").write_bytes(bytes(size))
    except EnvironmentFault as fault:
        assert "No space left on device" in fault.message, fault
        assert not list(store.root.glob(".tmp/*"))
        return "full"
    return "built"
say(check(2**20)); say(check(2**10)); say(store.open("compile", key) is not None)
"""
        mount = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]
        script = 'mount -t tmpfs -o size=1m tmpfs "$1"; exec "$2" -c "$3" "$1/store" "$4"'
        done = subprocess.run(
            [*mount, script, "sh", tmp_path, sys.executable, CHILD + code, KEY],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if "unshare" in done.stderr or "mount:" in done.stderr:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        assert done.stderr == ""
        assert done.stdout.split() == ["full", "built", "True"]


class TestPlaces:
    @pytest.mark.parametrize(
        ("variable", "directory"),
        [("IREE_PILOT_CACHE", cache_directory), ("IREE_PILOT_DATA", data_directory)],
    )
    class TestVariables:
        def test_one_that_is_set_is_obeyed_and_made(
            self,
            variable: str,
            directory: Callable[[], Path],
            tmp_path: Path,
            monkeypatch: pytest.MonkeyPatch,
        ) -> None:
            monkeypatch.setenv(variable, str(tmp_path / "deep" / "down"))
            assert directory() == tmp_path / "deep" / "down"
            assert directory().is_dir()

        def test_a_relative_one_is_made_absolute(
            self,
            variable: str,
            directory: Callable[[], Path],
            tmp_path: Path,
            monkeypatch: pytest.MonkeyPatch,
        ) -> None:
            monkeypatch.chdir(tmp_path)
            monkeypatch.setenv(variable, "here")
            assert directory() == tmp_path / "here"

        @pytest.mark.parametrize("value", [None, ""])
        def test_without_it_the_users_own_serves(
            self,
            variable: str,
            directory: Callable[[], Path],
            value: str | None,
            tmp_path: Path,
            monkeypatch: pytest.MonkeyPatch,
        ) -> None:
            monkeypatch.setenv("HOME", str(tmp_path))
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
            monkeypatch.delenv("XDG_DATA_HOME", raising=False)
            monkeypatch.delenv(variable)
            if value is not None:
                monkeypatch.setenv(variable, value)
            assert directory().is_relative_to(tmp_path)
            assert directory().name == "iree-pilot"

        def test_one_that_cannot_be_used_is_named_with_its_directory(
            self,
            variable: str,
            directory: Callable[[], Path],
            tmp_path: Path,
            monkeypatch: pytest.MonkeyPatch,
        ) -> None:
            (tmp_path / "file").touch()
            for unusable in (tmp_path / "file", tmp_path / "file" / "below", Path("/sys/nowhere")):
                monkeypatch.setenv(variable, str(unusable))
                with pytest.raises(EnvironmentFault, match=str(unusable)) as caught:
                    directory()
                assert variable in caught.value.advice

    def test_a_store_lies_in_the_cache(self, cache: Path) -> None:
        assert Store().root == cache / "store"

    def test_a_store_that_cannot_be_written_says_where_and_how_to_move_it(self) -> None:
        store = Store(Path("/sys/nowhere"))
        with (
            pytest.raises(EnvironmentFault, match="/sys/nowhere") as caught,
            store.build("compile", KEY),
        ):
            raise AssertionError("the block of a build that cannot be kept must not run")
        assert "IREE_PILOT_CACHE" in caught.value.advice

    def test_a_builders_own_trouble_is_not_the_stores(self, store: Store) -> None:
        with pytest.raises(PermissionError), store.build("compile", KEY):
            raise PermissionError(errno.EACCES, "Permission denied", "/home/user/model.mlir")
