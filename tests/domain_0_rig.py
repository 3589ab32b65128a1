"""Domain 0's kernel without the VMM: the committed image on Unicorn, above a mock of Xen's interface that is written here alone.

Memory is flat, so that linear, pseudo-physical and (but for the frames' order) machine addresses are easy to tell apart; the
guest is Python, which writes to its pages, sends events and looks at what comes back.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import struct
from pathlib import Path

import numpy as np
import unicorn
from ide_machine import IdeMachine
from unicorn import x86_const as x86

from x86virt.core.device_entries import device_serial_input
from x86virt.core.layout import NEVER
from x86virt.vmm.paravirtual import interface as xen

IMAGE = Path(__file__).parent.parent / "benchmarks" / "guests" / "images" / "domain_0.elf"
PAGE = 4096
DOMAIN_0_BYTES = 4 << 20
FIRST_MACHINE_FRAME = 0x20  # of domain 0: frame n of its own is machine frame n + 0x20
START_INFO, FRAME_LIST, SHARED_INFO = 0x300000, 0x301000, 0x310000
GUEST_DOMAIN = 1
GUEST_PAGES = 40
GUEST_FIRST_FRAME = 0x800  # machine frames of the guest's pages
# Of the host's time, in which domain 0 must come to its rest; the model of the disk may have to be compiled.
MICROSECONDS = 200_000_000
CONSOLE_REF, STORE_REF, BLOCK_REFS = 0, 1, 16
CONSOLE_PORT, STORE_PORT = 7, 9  # the guest's


class GuestPage:
    """A page of the guest's, which domain 0 can map: the same bytes for both."""

    def __init__(self) -> None:
        self.octets = mmap.mmap(-1, PAGE)
        self.place = ctypes.addressof(ctypes.c_char.from_buffer(self.octets))

    def word(self, offset: int) -> int:
        """A doubleword."""
        return int(struct.unpack_from("<I", self.octets, offset)[0])

    def put(self, offset: int, value: int) -> None:
        """Store a doubleword."""
        struct.pack_into("<I", self.octets, offset, value & 0xFFFFFFFF)


class Crashed(Exception):
    """Domain 0 shut down, or did what no kernel may do."""


class Rig:
    """Domain 0 with one guest; `disk` is the image of the primary master, None for no disk."""

    def __init__(self, disk: bytes | None = None, name: str = "test") -> None:
        self.ide = IdeMachine({} if disk is None else {0: disk})
        self.ide.service.memory = self  # type: ignore[assignment]
        self.engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
        self.engine.mem_map(0, DOMAIN_0_BYTES)
        self.pages = [GuestPage() for _ in range(GUEST_PAGES)]
        self.grants: dict[int, tuple[int, bool]] = {}  # reference -> page, whether it is read-only
        self.mapped: dict[int, tuple[int, int | None]] = {}  # handle -> reference, our linear page
        self.handles = 0
        self.channels: dict[int, int] = {}  # domain 0's port -> the guest's
        self.lines: dict[int, int] = {}  # interrupt line -> domain 0's port
        self.ports = 0
        self.told: list[int] = []  # the guest's ports that domain 0 notified
        self.calls: list[tuple[int, int]] = []
        self.console = bytearray()
        self.blocked = False
        self.crash = ""
        self.grant(CONSOLE_REF, 0)
        self.grant(STORE_REF, 1)
        self.engine.hook_add(unicorn.UC_HOOK_INTR, self.hypercall)
        self.engine.hook_add(unicorn.UC_HOOK_INSN, self.port_in, aux1=x86.UC_X86_INS_IN)
        self.engine.hook_add(unicorn.UC_HOOK_INSN, self.port_out, aux1=x86.UC_X86_INS_OUT)
        self.engine.reg_write(x86.UC_X86_REG_EIP, self.load(name))
        self.levels_were = 0
        self.patience: int | None = None  # commands that the disk ends while domain 0 waits; None: all of them
        self.go()

    # -- the domain builder -------------------------------------------------------------------------------------------

    def load(self, name: str) -> int:
        """Put the image, the hypercall page and the start information into memory; returns the entry."""
        image = IMAGE.read_bytes()
        (entry, table), (size, count) = struct.unpack_from("<II", image, 24), struct.unpack_from("<HH", image, 42)
        page = 0
        for number in range(count):
            kind, offset, address, _, in_file, *_ = struct.unpack_from("<8I", image, table + number * size)
            if kind == 1:
                self.engine.mem_write(address, image[offset : offset + in_file])
            elif kind == 4:
                page = self.note(image[offset : offset + in_file], 2)
        for number in range(xen.N_HYPERCALLS):
            code = b"\xb8" + number.to_bytes(4, "little") + b"\xcd\x82\xc3"
            self.engine.mem_write(page + number * xen.HYPERCALL_BYTES, code)
        line = f"domid={GUEST_DOMAIN} console={CONSOLE_PORT} store={STORE_PORT} memory=16384 name={name}".encode()
        info = struct.pack(
            "<32s12I", b"xen-3.0-x86_32", DOMAIN_0_BYTES // PAGE, SHARED_INFO, 3, 0, 0, 0, 0, 0, 0, FRAME_LIST, 0, 0
        )
        self.engine.mem_write(START_INFO, info + line)
        frames = range(FIRST_MACHINE_FRAME, FIRST_MACHINE_FRAME + DOMAIN_0_BYTES // PAGE)
        self.engine.mem_write(FRAME_LIST, struct.pack(f"<{len(frames)}I", *frames))
        self.engine.reg_write(x86.UC_X86_REG_ESI, START_INFO)
        return int(entry)

    @staticmethod
    def note(notes: bytes, wanted: int) -> int:
        """The number that a note holds."""
        place = 0
        while place < len(notes):
            name, bytes_of, kind = struct.unpack_from("<3I", notes, place)
            content = place + 12 + (name + 3 & ~3)
            if kind == wanted:
                return int.from_bytes(notes[content : content + bytes_of], "little")
            place = content + (bytes_of + 3 & ~3)
        raise AssertionError(f"no note {wanted}")

    # -- memory as the bus master sees it -------------------------------------------------------------------------------

    def page_of(self, frame: int) -> GuestPage | None:
        """The guest's page in a machine frame; domain 0 must hold it."""
        number = frame - GUEST_FIRST_FRAME
        if not any(self.grants.get(reference, (-1, False))[0] == number for reference, _ in self.mapped.values()):
            return None
        return self.pages[number]

    def read(self, address: int, count: int) -> bytes | None:
        """Machine memory."""
        page = self.page_of(address // PAGE)
        if page is not None:
            return bytes(page.octets[address % PAGE : address % PAGE + count])
        own = address - FIRST_MACHINE_FRAME * PAGE
        return bytes(self.engine.mem_read(own, count)) if 0 <= own < DOMAIN_0_BYTES else None

    def write(self, address: int, octets: bytes) -> bool:
        """The same, to store."""
        page = self.page_of(address // PAGE)
        if page is None:
            return False
        page.octets[address % PAGE : address % PAGE + len(octets)] = octets
        return True

    # -- running ------------------------------------------------------------------------------------------------------

    def go(self, patience: int | None = None) -> None:
        """Run domain 0 until nothing wakes it any more; only so many commands of the disk come to their end meanwhile."""
        left = self.patience if patience is None else patience
        while True:
            self.run()
            if left == 0 or not self.pass_time():
                return
            left = None if left is None else left - 1

    def run(self) -> None:
        """Run domain 0 until it blocks."""
        self.blocked = False
        try:
            self.engine.emu_start(self.engine.reg_read(x86.UC_X86_REG_EIP), 0xFFFFFFFF, timeout=MICROSECONDS)
        except unicorn.UcError as error:
            raise Crashed(f"{error} at {self.engine.reg_read(x86.UC_X86_REG_EIP):#x}") from error
        if not self.blocked:
            raise Crashed(self.crash + self.console.decode(errors="replace"))

    def pass_time(self) -> bool:
        """Let the disk do what it is at; whether domain 0 has heard of it."""
        while not self.pending():
            if int(self.ide.board.ide.deadline) == NEVER:
                return False
            self.ide.wait()
            self.follow_lines()
        return True

    def follow_lines(self) -> None:
        """An interrupt line that rises is an event of domain 0."""
        levels = int(self.ide.board.irq_levels)
        for line, port in self.lines.items():
            if levels & ~self.levels_were & 1 << line:
                self.raise_event(port)
        self.levels_were = levels

    def type_serial(self, octet: int) -> None:
        """A byte on the first serial port's line."""
        assert device_serial_input(self.ide.boards, self.ide.now, 0, np.array([octet], np.uint8)) == 1
        for _ in range(4):  # the character's time, and what else may be due
            self.ide.wait()
            self.follow_lines()
        self.go()

    def held(self) -> list[int]:
        """Grants that domain 0 holds beside the three rings."""
        return [reference for reference, _ in self.mapped.values() if reference >= BLOCK_REFS]

    def shared(self, offset: int) -> int:
        return int.from_bytes(self.engine.mem_read(self.shared_page + offset, 4), "little")

    def pending(self) -> bool:
        """Whether an event waits that wakes domain 0."""
        return bool(self.engine.mem_read(self.shared_page, 1)[0])

    def raise_event(self, port: int) -> None:
        """Set a port of domain 0 pending, as Xen does."""
        word = self.shared(0x800 + port // 32 * 4) | 1 << port % 32
        self.engine.mem_write(self.shared_page + 0x800 + port // 32 * 4, word.to_bytes(4, "little"))
        if not self.shared(0x880 + port // 32 * 4) >> port % 32 & 1:
            self.engine.mem_write(self.shared_page + 4, (self.shared(4) | 1 << port // 32).to_bytes(4, "little"))
            self.engine.mem_write(self.shared_page, b"\1")

    def notify(self, guest_port: int, patience: int | None = None) -> None:
        """The guest sends an event by one of its ports, and domain 0 runs."""
        for port, remote in self.channels.items():
            if remote == guest_port:
                self.raise_event(port)
        self.go(patience)

    # -- hypercalls ---------------------------------------------------------------------------------------------------

    def grant(self, reference: int, page: int, read_only: bool = False) -> int:
        """Let domain 0 use a page."""
        self.grants[reference] = (page, read_only)
        return reference

    def words(self, address: int, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.engine.mem_read(address, struct.calcsize(layout)))

    def hypercall(self, engine: unicorn.Uc, vector: int, _: object) -> None:
        """INT 82h by number; everything else is a trap that nobody expects."""
        if vector != xen.HYPERCALL_VECTOR:
            self.crash = f"vector {vector} at {engine.reg_read(x86.UC_X86_REG_EIP):#x} "
            engine.emu_stop()
            return
        number, *arguments = (
            engine.reg_read(register)
            for register in (x86.UC_X86_REG_EAX, x86.UC_X86_REG_EBX, x86.UC_X86_REG_ECX, x86.UC_X86_REG_EDX)
        )
        name = xen.HYPERCALLS[number]
        self.calls.append((number, arguments[0]))
        result = getattr(self, f"do_{name}")(*arguments)
        engine.reg_write(x86.UC_X86_REG_EAX, (result or 0) & 0xFFFFFFFF)

    def do_set_trap_table(self, table: int, *_: int) -> None:
        vectors = set()
        while (row := self.words(table, "<BBHI"))[3]:
            assert row[2] == xen.FLAT_RING1_CS
            vectors.add(row[0])
            table += 8
        assert vectors == set(range(20))

    def do_set_callbacks(self, *_: int) -> None:
        pass

    def do_update_va_mapping(self, page: int, low: int, high: int) -> None:
        assert (low & 0xFFFFF000, high) == (SHARED_INFO, 0)
        self.shared_page = page
        self.engine.mem_write(page, bytes(0x880) + b"\xff" * 0x80)

    def do_physdev_op(self, command: int, argument: int, *_: int) -> int:
        if command == 7:
            bitmap, self.open_ports = self.words(argument, "<II")
            self.closed = bytes(self.engine.mem_read(bitmap, self.open_ports // 8))
        elif command == 5:
            self.engine.mem_write(argument + 4, b"\1\0\0\0")
        else:
            assert command == 12
        return 0

    def do_event_channel_op(self, command: int, argument: int, *_: int) -> int:
        if command == 0:
            domain, remote, _ = self.words(argument, "<III")
            if domain != GUEST_DOMAIN or not 0 < remote < 64 or remote in self.channels.values():
                return -errno.EINVAL
            self.ports += 1
            self.channels[self.ports] = remote
            self.engine.mem_write(argument + 8, self.ports.to_bytes(4, "little"))
        elif command == 2:
            self.ports += 1
            self.lines[self.words(argument, "<I")[0]] = self.ports
            self.engine.mem_write(argument + 8, self.ports.to_bytes(4, "little"))
        elif command == 3:
            del self.channels[self.words(argument, "<I")[0]]
        else:
            assert command == 4
            self.told.append(self.channels[self.words(argument, "<I")[0]])
        return 0

    def do_sched_op(self, command: int, argument: int, *_: int) -> int:
        if command == 1:
            self.engine.mem_write(self.shared_page + 1, b"\0")
            if not self.pending():
                self.blocked = True
                self.engine.emu_stop()
        else:
            self.crash = f"sched_op {command} {self.words(argument, '<I')} "
            self.engine.emu_stop()
        return 0

    def do_grant_table_op(self, command: int, operations: int, count: int) -> int:
        assert command in (0, 1) and 0 < count <= 11
        for place in range(operations, operations + count * (24 if command else 32), 24 if command else 32):
            if command:
                self.unmap(place)
            else:
                self.map(place)
        return 0

    def map(self, place: int) -> None:
        address, kind, reference, domain = self.words(place, "<QIIH")
        page, read_only = self.grants.get(reference, (-1, False))
        if domain != GUEST_DOMAIN or page < 0 or (read_only and not kind & xen.GNTMAP_readonly):
            self.engine.mem_write(place + 18, struct.pack("<h", -3))
            return
        self.handles += 1
        if kind & xen.GNTMAP_host_map:
            self.engine.mem_unmap(address, PAGE)
            self.engine.mem_map_ptr(address, PAGE, unicorn.UC_PROT_ALL, self.pages[page].place)
        self.mapped[self.handles] = (reference, address if kind & xen.GNTMAP_host_map else None)
        frame = GUEST_FIRST_FRAME + page
        self.engine.mem_write(place + 18, struct.pack("<hIQ", 0, self.handles, frame * PAGE))

    def unmap(self, place: int) -> None:
        address, _, handle = self.words(place, "<QQI")
        _, mapped = self.mapped.pop(handle)
        assert mapped is None or mapped == address
        if mapped is not None:
            self.engine.mem_unmap(address, PAGE)
            self.engine.mem_map(address, PAGE)
        self.engine.mem_write(place + 20, struct.pack("<h", 0))

    # -- ports --------------------------------------------------------------------------------------------------------

    def is_open(self, port: int) -> bool:
        """Whether the bitmap of domain 0 lets it use a port."""
        return port < self.open_ports and not self.closed[port // 8] >> port % 8 & 1

    def port_in(self, _: unicorn.Uc, port: int, n: int, *__: object) -> int:
        assert self.is_open(port), f"port {port:#x}"
        value = self.ide.port_in(port, n)
        while port == 0x3F6 and value & 0x80 and self.ide.wait():
            value = self.ide.port_in(port, n)
        self.follow_lines()
        return value

    def port_out(self, _: unicorn.Uc, port: int, n: int, value: int, *__: object) -> None:
        assert self.is_open(port), f"port {port:#x}"
        if port == 0xE9:
            self.console.append(value & 0xFF)
            return
        self.ide.port_out(port, value, n)
        self.follow_lines()
