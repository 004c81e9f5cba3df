"""libbpf through ctypes: load the object, find its programs, read and write its maps.

Only what this project needs, typed. Nothing here is loaded before `load` or `open_pinned` is
called, so an agent without eBPF never touches the library.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from raft_agent.kernel import layout

_LIBRARY = "libbpf.so.1"
_SCHED_CLS = 3  # BPF_PROG_TYPE_SCHED_CLS of <linux/bpf.h>
_PER_CPU_TYPES = frozenset({5, 6, 10})  # BPF_MAP_TYPE_PERCPU_HASH, _PERCPU_ARRAY, _LRU_PERCPU_HASH
_LOG_BYTES = 1 << 20  # the verifier says more than anybody wants to read; its end says why
# <linux/capability.h>
_CAPABILITIES = {"CAP_BPF": 39, "CAP_NET_ADMIN": 12, "CAP_PERFMON": 38}
_CAP_SYS_ADMIN = 21
# Of no use outside the program, but for the events, which every reader would take from the agent.
_PRIVATE = frozenset({"parts", "packets", "empty_flow", "events"})

# enum libbpf_print_level, the format, a va_list: a pointer in both ABIs that we run on (System V
# AMD64 §3.5.7: an array; AAPCS64 §10.1.5: a struct over 16 bytes, which goes by reference).
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_DEBUG = 2

_loading = threading.Lock()  # libbpf has one print function for all


class KernelUnavailable(Exception):  # noqa: N818  # what is so, more than what went wrong
    """The program can't be loaded here. `reason` is a short stable word: "platform", "libbpf",
    "object", "capability", "kernel"; the text says what is missing and how to get it; `log` is what
    libbpf and the kernel's verifier said; `fix` is a command that mends it, or empty.
    """

    def __init__(self, reason: str, text: str, log: str = "", fix: str = "") -> None:
        super().__init__(text)
        self.reason = reason
        self.fix = fix
        self.log = log


class _MapInfo(ctypes.Structure):
    """The beginning of struct bpf_map_info of <linux/bpf.h>."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
    )
    type: int
    key_size: int
    value_size: int
    max_entries: int
    name: bytes


@functools.cache
def library() -> ctypes.CDLL:
    if not sys.platform.startswith("linux"):
        raise KernelUnavailable("platform", f"eBPF is part of Linux, and this is {sys.platform}")
    if sys.byteorder != "little":
        raise KernelUnavailable("platform", "the program is built for little-endian machines only")
    try:
        library = ctypes.CDLL(_LIBRARY, use_errno=True)
    except OSError as error:
        raise KernelUnavailable(
            "libbpf",
            f"{_LIBRARY} is missing: install it (Debian: apt-get install libbpf1)",
            fix="apt-get install libbpf1",
        ) from error
    _declare(library)
    return library


def _declare(library: ctypes.CDLL) -> None:
    pointer, text, fd, u32 = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32
    size = ctypes.c_size_t
    functions: dict[str, tuple[object, ...]] = {
        "libbpf_num_possible_cpus": (fd,),
        "libbpf_set_print": (pointer, _PRINT),
        "bpf_object__open_file": (pointer, text, pointer),
        "bpf_object__load": (fd, pointer),
        "bpf_object__close": (None, pointer),
        "bpf_object__next_program": (pointer, pointer, pointer),
        "bpf_object__next_map": (pointer, pointer, pointer),
        "bpf_program__name": (text, pointer),
        "bpf_program__fd": (fd, pointer),
        "bpf_program__set_type": (fd, pointer, fd),
        "bpf_program__set_expected_attach_type": (fd, pointer, fd),
        "bpf_map__name": (text, pointer),
        "bpf_map__fd": (fd, pointer),
        "bpf_map__set_max_entries": (fd, pointer, u32),
        "bpf_map__set_initial_value": (fd, pointer, pointer, size),
        "bpf_map_get_next_key": (fd, fd, pointer, pointer),
        "bpf_obj_pin": (fd, fd, text),
        "bpf_obj_get": (fd, text),
        "bpf_obj_get_info_by_fd": (fd, fd, pointer, ctypes.POINTER(u32)),
        "ring_buffer__new": (pointer, fd, pointer, pointer, pointer),
        "ring_buffer__free": (None, pointer),
        "ring_buffer__epoll_fd": (fd, pointer),
        "ring_buffer__consume": (fd, pointer),
    }
    for name, (result, *arguments) in functions.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments


@functools.cache
def quick_library() -> ctypes.PyDLL:
    """Calls that take microseconds and never wait, of a caller that keeps the interpreter: to give
    it away and get it back from a busy thread takes up to `sys.getswitchinterval`, 5 ms."""
    library()  # which says what is missing
    quick = ctypes.PyDLL(_LIBRARY)
    pointer, fd, u32 = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32
    for name, arguments in {
        "bpf_map_lookup_elem": (fd, pointer, pointer),
        "bpf_map_update_elem": (fd, pointer, pointer, ctypes.c_uint64),
        "bpf_map_delete_elem": (fd, pointer),
        "bpf_map_update_batch": (fd, pointer, pointer, ctypes.POINTER(u32), pointer),
    }.items():
        function = getattr(quick, name)
        function.restype = ctypes.c_int
        function.argtypes = arguments
    return quick


class Map:
    """One map in the kernel. Keys and values are bytes; of per-CPU maps a value is all CPUs' values
    one after the other, each filled up to a multiple of 8 bytes.

    All methods raise OSError when the kernel refuses.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        info = _MapInfo()
        size = ctypes.c_uint32(ctypes.sizeof(info))
        _check(
            library().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)),
            "ask the kernel about a map",
        )
        self.name = info.name.decode()
        self.key_size = info.key_size
        self.value_size = info.value_size
        self.max_entries = info.max_entries
        self._buffer_size = info.value_size
        if info.type in _PER_CPU_TYPES:
            self._buffer_size = -(-info.value_size // 8) * 8 * possible_cpus()
        # At hand, because a read that is as quick as the call itself has no time to look for them.
        self._value_type = ctypes.c_char * self._buffer_size
        self._look_up = quick_library().bpf_map_lookup_elem

    def lookup(self, key: bytes) -> bytes | None:
        """The value at `key`, None when there is none."""
        if len(key) != self.key_size:
            self._key(key)
        value = self._value_type()
        result = self._look_up(self.fd, key, value)
        if result == 0:
            return value.raw
        if result == -errno.ENOENT:
            return None
        _check(result, f"read the map {self.name}")
        return None

    def lookup_sum(self, key: bytes) -> int:
        """Of a per-CPU map whose values are u64: the sum over all CPUs."""
        value = self.lookup(key) or b""
        return sum(number for (number,) in layout.U64.iter_unpack(value))

    def update(self, key: bytes, value: bytes) -> None:
        """Set the value at `key`."""
        if len(value) != self._buffer_size:
            raise ValueError(
                f"a value of {self.name} has {self._buffer_size} bytes, not {len(value)}"
            )
        _check(
            quick_library().bpf_map_update_elem(self.fd, self._key(key), value, 0),
            f"write the map {self.name}",
        )

    def delete(self, key: bytes) -> bool:
        """Whether there was something to delete."""
        result = quick_library().bpf_map_delete_elem(self.fd, self._key(key))
        if result == -errno.ENOENT:
            return False
        _check(result, f"delete from the map {self.name}")  # noqa: S608  # no SQL
        return True

    def keys(self) -> Iterator[bytes]:
        """All keys; what changes meanwhile may be left out or come twice."""
        key: ctypes.Array[ctypes.c_char] | None = None
        for _ in range(2 * self.max_entries):  # a key that is deleted meanwhile starts it anew
            following = ctypes.create_string_buffer(self.key_size)
            result = library().bpf_map_get_next_key(self.fd, key, following)
            if result == -errno.ENOENT:
                return
            _check(result, f"list the map {self.name}")
            yield following.raw
            key = following

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys with their values."""
        for key in self.keys():
            value = self.lookup(key)
            if value is not None:
                yield key, value

    def _key(self, key: bytes) -> bytes:
        if len(key) != self.key_size:
            raise ValueError(f"a key of {self.name} has {self.key_size} bytes, not {len(key)}")
        return key


class LoadedObject:
    """The program in the kernel. Keep it open as long as it is attached: behind `close` attached
    programs count packets but no frames any more, since the kernel empties a table of programs
    that no process holds. Pinned maps stay.
    """

    def __init__(self, handle: int) -> None:
        self._handle: int | None = handle
        bpf = library()
        self._programs = {
            bpf.bpf_program__name(program).decode(): int(bpf.bpf_program__fd(program))
            for program in _each(bpf.bpf_object__next_program, handle)
        }
        self._maps = {
            bpf.bpf_map__name(found).decode(): Map(bpf.bpf_map__fd(found))
            for found in _each(bpf.bpf_object__next_map, handle)
        }

    def program_fd(self, name: str) -> int:
        """The file descriptor of a program, valid until `close`. Raises KeyError."""
        return self._programs[name]

    def map(self, name: str) -> Map:
        """One of the maps of raft_maps.h, valid until `close`. Raises KeyError."""
        return self._maps[name]

    def close(self) -> None:
        """Give all file descriptors back. Does nothing the second time."""
        if self._handle is not None:
            library().bpf_object__close(self._handle)
            self._handle = None

    def pin_maps(self, directory: Path) -> None:
        """Pin the maps that others may read in `directory` (on a bpffs), in place of what had their
        names there.

        Raises OSError.
        """
        for name, found in self._public_maps():
            # A reader sees the old map or the new one, never none.
            new = directory / f"{name}-new"
            new.unlink(missing_ok=True)
            _check(library().bpf_obj_pin(found.fd, os.fsencode(new)), f"pin {new}")
            new.rename(directory / name)

    def unpin_maps(self, directory: Path) -> None:
        """Take the pins of `pin_maps` away again. Raises OSError."""
        for name, _ in self._public_maps():
            (directory / name).unlink(missing_ok=True)

    def _public_maps(self) -> Iterator[tuple[str, Map]]:
        for name, found in self._maps.items():
            if name not in _PRIVATE and "." not in name:  # .rodata; and bpffs takes no dots
                yield name, found


def load(
    object_path: Path,
    *,
    rodata: Mapping[str, int],
    pin_dir: Path | None,
    max_flows: int | None = None,
) -> LoadedObject:
    """Load the program with the fields `rodata` of struct raft_config set (the others are 0), and
    pin its maps in `pin_dir` (on a bpffs), if given.

    Raises KernelUnavailable.
    """
    bpf = library()
    if not object_path.is_file():
        raise KernelUnavailable(
            "object",
            f"the program {object_path} is missing: install the package again, or make bpf",
            fix=f"{sys.executable} -m pip install --force-reinstall raft-ebpf",
        )
    values = {name: 0 for name, code in layout.CONFIG.fields.items() if "x" not in code}
    if not rodata.keys() <= values.keys():
        raise ValueError(f"struct raft_config has no {sorted(rodata.keys() - values.keys())}")
    config = layout.CONFIG.pack(*(values | dict(rodata)).values())
    with _loading, captured() as said:
        handle = bpf.bpf_object__open_file(os.fsencode(object_path), None)
        if not handle:
            raise KernelUnavailable(
                "object", f"{object_path} is no BPF object that libbpf can read", "".join(said)
            )
        try:
            _prepare(handle, config, max_flows or _flows_for(possible_cpus()))
            result = bpf.bpf_object__load(handle)
            if result < 0:
                raise _refused(-result, "".join(said))
            loaded = LoadedObject(handle)
        except BaseException:
            bpf.bpf_object__close(handle)
            raise
    if pin_dir is not None:
        try:
            loaded.pin_maps(pin_dir)
        except OSError as error:
            loaded.close()
            raise KernelUnavailable(
                "capability",
                f"can't pin maps in {pin_dir}: {error.strerror}; it must be a directory on a bpffs"
                f" that this user may write to (mount -t bpf bpf {pin_dir})",
            ) from error
    return loaded


def open_pinned(path: Path) -> Map:
    """A map that was pinned; it stays open as long as the process lives. Raises OSError."""
    fd = library().bpf_obj_get(os.fsencode(path))
    _check(fd, f"open {path}")
    return Map(fd)


@functools.cache
def possible_cpus() -> int:
    """How many values a per-CPU map holds for each key. Raises OSError."""
    count: int = library().libbpf_num_possible_cpus()
    _check(count, "count the CPUs")
    return count


def _flows_for(cpus: int) -> int:
    """An LRU map keeps up to 128 free elements back per CPU (LOCAL_FREE_TARGET of
    kernel/bpf/bpf_lru_list.c); they must not be taken from the flows that are in use.
    """
    return layout.MAX_FLOWS + 128 * cpus


def _prepare(handle: int, config: bytes, max_flows: int) -> None:
    bpf = library()
    for program in _each(bpf.bpf_object__next_program, handle):
        # libbpf before 1.3 doesn't know the section names; later ones would set attach types that
        # keep programs from calling each other.
        bpf.bpf_program__set_type(program, _SCHED_CLS)
        bpf.bpf_program__set_expected_attach_type(program, 0)
    for found in _each(bpf.bpf_object__next_map, handle):
        name = bpf.bpf_map__name(found).decode()
        if name.endswith(".rodata"):
            result = bpf.bpf_map__set_initial_value(found, config, len(config))
            if result < 0:
                raise KernelUnavailable(
                    "object", "the object's read-only data has another layout: run make bpf"
                )
        elif name == "flows":
            bpf.bpf_map__set_max_entries(found, max_flows)


def _refused(code: int, log: str) -> KernelUnavailable:
    missing = missing_capabilities()
    if missing:
        return KernelUnavailable(
            "capability",
            f"the kernel refuses to load the program without {', '.join(missing)}: run as root, or"
            " give the process CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
            log,
            "AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON in the agent's systemd unit, or"
            " sudo raft-agent --config raft.toml",
        )
    if code == errno.EPERM:
        return KernelUnavailable(
            "capability",
            "the kernel refuses to load the program: its RLIMIT_MEMLOCK is too low (kernels before"
            " 5.11), or a security module forbids it",
            log,
            "ulimit -l unlimited",
        )
    return KernelUnavailable(
        "kernel",
        f"kernel {os.uname().release} can't run the program ({os.strerror(code)}); it needs Linux"
        " 5.10 or newer with CONFIG_BPF_SYSCALL",
        log,
    )


def missing_capabilities() -> list[str]:
    """What capabilities(7) asks of who loads a TC program, and this process lacks. Without
    CAP_PERFMON the verifier also follows what the CPU might only speculate, and gives up.
    """
    status = Path("/proc/self/status").read_text()
    (effective,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    has = int(effective, 16)
    if has >> _CAP_SYS_ADMIN & 1:  # stands for the other two
        return [] if has >> _CAPABILITIES["CAP_NET_ADMIN"] & 1 else ["CAP_NET_ADMIN"]
    return [name for name, bit in _CAPABILITIES.items() if not has >> bit & 1]


def _each(following: Callable[[int, int | None], int | None], handle: int) -> Iterator[int]:
    found = following(handle, None)
    while found:
        yield found
        found = following(handle, found)


def _check(result: int, doing: str) -> None:
    if result < 0:
        raise OSError(-result, f"can't {doing}: {os.strerror(-result)}")


@contextlib.contextmanager
def captured() -> Iterator[list[str]]:
    """What libbpf has to say, instead of on stderr."""
    said: list[str] = []
    vsnprintf = ctypes.CDLL(None).vsnprintf
    vsnprintf.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]

    def note(level: int, text: bytes, arguments: int) -> int:
        if level < _DEBUG:
            line = ctypes.create_string_buffer(_LOG_BYTES)
            vsnprintf(line, _LOG_BYTES, text, arguments)
            said.append(line.value.decode(errors="replace"))
        return 0

    function = _PRINT(note)
    before = library().libbpf_set_print(function)
    try:
        yield said
    finally:
        library().libbpf_set_print(ctypes.cast(before, _PRINT))
