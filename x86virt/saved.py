r"""Save and restore: a whole machine in one file, from which the run goes on as if it had never been cut.

The file (all numbers little-endian):

    offset  bytes    what
    0       16       magic "x86virt machine\\n"
    16      4        version of the format
    20      4        length L of the manifest
    24      L        the manifest: JSON, UTF-8
    24 + L  ...      the arrays, one behind the other as the manifest lists them, as one zlib stream
    end-32  32       SHA-256 of everything before

The manifest holds

    guest, guest_sha256       the image's name and hash
    strategy                  its name; strategy_state: what it says of its own
    profile, profile_digest   the processor's profile and the hash of its values
    memory_bytes, cache_model, check_isolation
    firmware_bytes            of the BIOS image and the expansion ROM of the VGA, 0 if there is none
    apic                      1 if there is a local APIC and an I/O APIC
    machine                   outcome so far, regions measured, exits; the input script and how far it was played
    disks                     where which image is, and what identifies it (x86virt/saved_disks.py)
    vm                        what the VMM keeps outside RAM (x86virt/vmm/saved_state.py); null on the bare machine
    arrays                    [name, layout, count] each, where layout is that of a NumPy dtype ("<i8", or [name, layout] pairs)

The arrays are RAM, ROM, every field of the processor record (`cpu.NAME`: registers, TLBs, caches, the ledger, the tick counter,
the host's timer), the boards, the p2m, the ledgers of measured regions, and what console, serial ports and screen have
said. Nothing in the file is executed. What only serves speed (decoded code, front caches) is not saved: no cycle depends on it.

A file that is truncated, altered, of another version, or made by a machine with another profile or record layout is
refused with a `SavedError` of one line.
"""

import hashlib
import json
import os
import pathlib
import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .console.sources import NAMES
from .core.board import BOARD, CONSOLE_BYTES, SHUTDOWN_WORD
from .core.entries import arm_stops, refresh_segment
from .core.keyboard import RESPONSE_BYTES, SCAN_BYTES
from .core.layout import CPU, MAX_ROWS, N_TLB_TAGS, NEVER, TIME_OFF
from .core.port_map import N_DEVICES
from .core.uart import FIFO_BYTES, SENT_BYTES
from .errors import UserError, show
from .exit_counts import ExitCount
from .isa.events import N_MODES
from .isa.registers import N_SEGMENTS
from .ledger import SHAPE, Ledger
from .machine import Machine, Region
from .processor import DEBUGGER_FIELDS, HOST_FIELDS, LARGEST_BIOS, Processor
from .profile import Profile, ProfileError, load_profile
from .saved_apics import check_apics
from .saved_disks import (
    check_drives,
    check_ide,
    disk_arrays,
    disks_state,
    expected_disk_arrays,
    restore_disks,
    restore_overlays,
)
from .saved_guests import check_guests
from .saved_tlbs import check_tlbs
from .vmm.isolation import set_owners
from .vmm.registry import find_strategy
from .vmm.saved_interpreter import fill_interpreter, interpreter_arrays
from .vmm.saved_state import (
    divergences_state,
    exits_of,
    looks_state,
    restore_divergences,
    restore_looks,
    restore_vm,
    vm_state,
    within,
)

if TYPE_CHECKING:
    from .vmm import Strategy

MAGIC = b"x86virt machine\n"
VERSION = 4
HEAD = struct.Struct("<16sII")
HASH_BYTES = 32
LARGEST_MANIFEST = 1 << 26
LARGEST_FILE = 1 << 33
SMALLEST_MEMORY, LARGEST_MEMORY = 1 << 12, 2 << 30
AGAIN = "save the machine again"
# Fields of the processor that say what machine it is: they must be those of the machine that is made to take the state.
IDENTITY_FIELDS = (
    "price", "cache_levels", "cache_all", "ram_last", "place_last", "rom_first", "bios_bytes", "vga_rom_bytes", "code_map",
    "owner_table", "frame_map", "write_log", "interrupt_exits", "protected_exits",
    *(name for name in CPU.names or () if name.startswith("cpuid")),
)  # fmt: skip
TIME_LOG_FIELDS = ("time_mode", "time_count", "time_next", "time_log")


class SavedError(UserError):
    """A machine that cannot be saved, or a file that cannot be restored."""


# -- saving ---------------------------------------------------------------------------------------------------------


def save_machine(machine: Machine, path: str | os.PathLike[str]) -> None:
    """Write a machine, at an instruction boundary, to a file. Raises SavedError."""
    content = machine_bytes(machine, path)
    target = pathlib.Path(path)
    partial = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        partial.write_bytes(content)
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise SavedError(path, f"cannot be written ({error.strerror})", "give another file") from None


def machine_bytes(machine: Machine, where: object = "machine") -> bytes:
    """A machine as the bytes of its file. Raises SavedError."""
    if machine.processor.cpu.time_mode != TIME_OFF:
        raise SavedError(where, "a run that is recorded or replayed cannot be saved", "save it without --record")
    machine.processor.settle()
    arrays = dict(machine_arrays(machine))
    manifest = {
        "guest": machine.guest[0],
        "guest_sha256": machine.guest[1],
        "strategy": machine.strategy.name,
        "strategy_state": strategy_state(machine, where),
        "profile": machine.profile.name,
        "profile_digest": machine.profile.digest(),
        "memory_bytes": machine.memory_bytes,
        "firmware_bytes": firmware_bytes(machine),
        "apic": int(machine.processor.cpu.apic.present),
        "cache_model": machine.cache_model,
        "check_isolation": bool(machine.processor.cpu.owner_table),
        "machine": machine_state(machine),
        "disks": disks_state(machine.disks),
        "vm": None if machine.vm is None else vm_state(machine.vm),
        "arrays": [[name, layout_of(array.dtype), array.size] for name, array in arrays.items()],
    }
    head = json.dumps(manifest).encode()
    packer = zlib.compressobj(1)
    pieces = [HEAD.pack(MAGIC, VERSION, len(head)), head]
    pieces += [packer.compress(little_endian(array)) for array in arrays.values()]
    pieces.append(packer.flush())
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return b"".join([*pieces, digest.digest()])


def strategy_state(machine: Machine, where: object) -> dict[str, Any]:
    """What the strategy itself must keep: nothing, or what it says."""
    strategy = machine.strategy
    try:
        return json.loads(json.dumps(strategy.save()))
    except (NotImplementedError, TypeError, ValueError) as error:
        what = f"strategy {strategy.name} cannot be saved: {error}"
        raise SavedError(where, what, "write its save() and restore(state), or run it without saving") from None


def machine_arrays(machine: Machine) -> Iterator[tuple[str, np.ndarray]]:
    """Every array of a machine's state by name."""
    processor = machine.processor
    yield "ram", processor.ram
    yield "rom", processor.rom
    state = processor.state.view(np.ndarray)
    for name in saved_fields():
        yield f"cpu.{name}", np.ascontiguousarray(state[name]).reshape(-1)
    yield "board", processor.boards.view(np.ndarray).reshape(-1)
    if machine.vm is not None:
        yield "vm.board", machine.vm.boards.view(np.ndarray).reshape(-1)
        yield "vm.model_specific", machine.vm.model_specific.view(np.ndarray).reshape(-1)
        yield "vm.p2m", machine.vm.p2m
        if machine.vm.made_interpreter is not None:
            for name, array in interpreter_arrays(machine.vm.made_interpreter):
                yield f"vm.interpreter.{name}", array
        yield "vm.shadow", machine.vm.shadow.controls.view(np.ndarray).reshape(-1)
    for name, octets in machine.dialogue.texts().items():
        yield name, np.frombuffer(octets, np.uint8)
    yield from disk_arrays(machine.disks)
    for name, ledger in ledgers(machine):
        yield f"{name}.count", ledger.count.reshape(-1)
        yield f"{name}.ticks", ledger.ticks.reshape(-1)


def saved_fields() -> list[str]:
    """The processor's fields that are saved."""
    left_out = {*HOST_FIELDS, *TIME_LOG_FIELDS, *DEBUGGER_FIELDS}
    return [name for name in CPU.names or () if name not in left_out]


def ledgers(machine: Machine) -> Iterator[tuple[str, Ledger]]:
    """The ledgers of measured regions, and the one at the start of a region that is open."""
    for number, region in enumerate(machine.regions):
        yield f"region{number}", region.ledger
    if machine.open_region is not None:
        yield "open", machine.open_region[3]


def machine_state(machine: Machine) -> dict[str, Any]:
    """What the machine keeps in Python objects."""
    opened = machine.open_region
    return {
        "outcome": machine.outcome,
        "has_firmware": machine.has_firmware,
        "reboots": machine.reboots,
        "usual_cycles": machine.usual_cycles,
        "dialogue": machine.dialogue.state(),
        "regions": [
            [region.number, region.iterations, region.instructions, region.ticks, region.exits]
            for region in machine.regions
        ],
        "open": None if opened is None else [*opened[:3], opened[4]],
        "divergences": divergences_state(machine),
        "looks": looks_state(machine),
    }


def layout_of(dtype: np.dtype) -> Any:
    """A dtype as JSON: "<i8", or [[name, layout, shape], ...]."""
    if dtype.names is None:
        return dtype.newbyteorder("<").str
    rows = []
    for name in dtype.names:
        inner = dtype[name]
        rows.append([name, layout_of(inner.base), list(inner.shape)])
    return rows


def little_endian(array: np.ndarray) -> bytes:
    """The bytes of an array as the file has them."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


# -- restoring --------------------------------------------------------------------------------------------------------


def restore_machine(
    path: str | os.PathLike[str], profile: Profile | None = None, strategy: "type[Strategy] | None" = None
) -> Machine:
    """The machine of a file, ready to run on. Raises SavedError.

    `profile` and `strategy` are needed where the built-in names do not find them.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SavedError(path, f"cannot be read ({reason})", "give the file of a saved machine") from None
    return machine_of(content, path, profile, strategy)


def machine_of(
    content: bytes, where: object, profile: Profile | None = None, strategy: "type[Strategy] | None" = None
) -> Machine:
    """The machine of a file's bytes. Raises SavedError."""
    manifest, packed = open_content(content, where)
    try:
        machine = empty_machine(manifest, where, profile, strategy)
        arrays = unpack(manifest, packed, expected_arrays(machine, manifest))
        fill(machine, manifest, arrays)
        machine.strategy.restore(manifest["strategy_state"])
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, zlib.error) as error:
        what = f"not a machine that this version can take ({type(error).__name__}: {show(error)})"
        raise SavedError(where, what, AGAIN) from None
    return machine


def open_content(content: bytes, where: object) -> tuple[dict[str, Any], bytes]:
    """The manifest and the packed arrays of a file that is whole."""
    if content[: len(MAGIC)] != MAGIC[: len(content)] or not content:
        raise SavedError(where, "not a saved machine", "give a file that `x86virt run --save` has written")
    if len(content) < HEAD.size + HASH_BYTES:
        raise SavedError(where, f"truncated: {len(content)} bytes", "copy it again, or " + AGAIN)
    _, version, length = HEAD.unpack_from(content)
    if version != VERSION:
        advice = f"this x86virt reads version {VERSION}: {AGAIN} with it, or restore with the one that wrote it"
        raise SavedError(where, f"version {version} of the format is not known", advice)
    body = content[:-HASH_BYTES]
    if hashlib.sha256(body).digest() != content[-HASH_BYTES:]:
        raise SavedError(where, "truncated or altered: its hash is another", "copy it again, or " + AGAIN)
    try:
        if length > LARGEST_MANIFEST or HEAD.size + length > len(body):
            raise ValueError("its manifest is longer than the file")
        manifest = json.loads(body[HEAD.size : HEAD.size + length])
        if not isinstance(manifest, dict):
            raise ValueError("its manifest is no table")
    except (ValueError, RecursionError) as error:
        raise SavedError(where, f"damaged ({show(error)})", AGAIN) from None
    return manifest, body[HEAD.size + length :]


def empty_machine(
    manifest: dict[str, Any], where: object, profile: Profile | None, strategy: "type[Strategy] | None"
) -> Machine:
    """A machine of the same make."""
    name = manifest["profile"]
    if profile is None:
        try:
            profile = load_profile(name)
        except ProfileError:
            what = f"was made with the profile {show(name)}, which is not built in"
            raise SavedError(where, what, "give its file with --profile") from None
    if profile.digest() != manifest["profile_digest"]:
        what = f"was made with another profile {show(name)} than {profile.name} is now"
        raise SavedError(where, what, "give the profile of then with --profile, or " + AGAIN)
    chosen = strategy or find_strategy(manifest["strategy"])
    if chosen.name != manifest["strategy"]:
        what = f"was made under the strategy {show(manifest['strategy'])}, not {chosen.name}"
        raise SavedError(where, what, "give that one with --strategy")
    memory = within(manifest["memory_bytes"], SMALLEST_MEMORY, LARGEST_MEMORY)
    if memory % 4096 or manifest["cache_model"] not in ("tables", "all"):
        raise ValueError("memory_bytes or cache_model")
    checked = within(manifest["check_isolation"], 0, 1) == 1
    machine = Machine(chosen(), profile, memory, manifest["cache_model"], checked)
    bios_bytes, vga_rom_bytes = (within(count, 0, LARGEST_BIOS) for count in manifest["firmware_bytes"])
    if within(manifest["apic"], 0, 1):
        machine.fit_apic()
    if machine.vm is not None and manifest["vm"]["interpreter"] is not None:
        guest_processor(machine)  # which makes the interpreter
    if bios_bytes:
        guest_processor(machine).install_firmware(bytes(bios_bytes), bytes(vga_rom_bytes))
    return machine


def guest_processor(machine: Machine) -> Processor:
    """The processor that a guest's firmware belongs to."""
    return machine.processor if machine.vm is None else machine.vm.interpreter.processor


def firmware_bytes(machine: Machine) -> list[int]:
    """The sizes of the BIOS image and of the expansion ROM of the VGA."""
    if machine.vm is not None and machine.vm.made_interpreter is None:
        return [0, 0]
    cpu = guest_processor(machine).cpu
    return [int(cpu.bios_bytes), int(cpu.vga_rom_bytes)]


def expected_arrays(machine: Machine, manifest: dict[str, Any]) -> dict[str, tuple[np.dtype, int]]:
    """Name -> dtype and count of every array that a file of this machine has."""
    rows = {name: (array.dtype, array.size) for name, array in machine_arrays(machine)}
    for name in NAMES:
        rows[name] = (np.dtype(np.uint8), text_length(manifest, name))
    rows |= expected_disk_arrays(manifest["disks"])
    names = [f"region{number}" for number in range(len(manifest["machine"]["regions"]))]
    names += ["open"] if manifest["machine"]["open"] is not None else []
    for name in names:
        rows[f"{name}.count"] = rows[f"{name}.ticks"] = (np.dtype(np.int64), SHAPE[0] * SHAPE[1])
    return rows


def text_length(manifest: dict[str, Any], wanted: str) -> int:
    """Bytes of one of the texts in a file."""
    return within({name: count for name, _, count in manifest["arrays"]}[wanted], 0, LARGEST_MEMORY)


def unpack(
    manifest: dict[str, Any], packed: bytes, expected: dict[str, tuple[np.dtype, int]]
) -> dict[str, np.ndarray]:
    """The arrays by name, if they are exactly those expected."""
    listed = {name: (layout, count) for name, layout, count in manifest["arrays"]}
    wanted = {name: (layout_of(dtype), count) for name, (dtype, count) in expected.items()}
    for name in listed.keys() | wanted.keys():
        if listed.get(name) != wanted.get(name):
            raise ValueError(f"its array {name} is laid out otherwise")
    total = sum(dtype.itemsize * count for dtype, count in expected.values())
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(packed, total + 1)
    if len(content) != total or not unpacker.eof or unpacker.unused_data:
        raise ValueError("its arrays have another length")
    arrays, place = {}, 0
    for name, _, _ in manifest["arrays"]:
        dtype, count = expected[name]
        arrays[name] = np.frombuffer(content, dtype.newbyteorder("<"), count, place).astype(dtype)
        place += dtype.itemsize * count
    return arrays


def fill(machine: Machine, manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Put a state into a machine of the same make."""
    check_processor(machine, arrays)
    check_board(arrays["board"])
    restore_disks(machine.disks, manifest["disks"], arrays)
    fill_hardware(machine, arrays)
    if machine.vm is not None:
        fill_vm(machine, manifest["vm"], arrays)
    check_drives(machine.board["ide"], machine.disks)
    fill_python_state(machine, manifest, arrays)


def fill_hardware(machine: Machine, arrays: dict[str, np.ndarray]) -> None:
    """The processor, RAM and the board; what only serves speed starts afresh."""
    processor = machine.processor
    processor.settle()
    state = processor.state.view(np.ndarray)
    processor.ram[:] = arrays["ram"]
    processor.rom[:] = arrays["rom"]
    for name in saved_fields():
        state[name] = arrays[f"cpu.{name}"].reshape(state[name].shape)
    processor.boards.view(np.ndarray)[:] = arrays["board"]
    for segment in range(N_SEGMENTS):
        refresh_segment(processor.state, segment)
    arm_stops(processor.state)
    processor.discard_host_state()


def restore_machine_state(machine: Machine, arrays: dict[str, np.ndarray]) -> None:
    """Put a machine back to where `machine_arrays` was taken of it (copies): the bare machine, without measured regions.

    For many short runs from one place: it is much cheaper than another machine.
    """
    fill_hardware(machine, arrays)
    machine.outcome, machine.open_region = None, None
    machine.regions.clear()
    machine.dialogue.set_texts(texts_of(arrays))
    restore_overlays(machine.disks, arrays)


def fill_vm(machine: Machine, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """The VMM's part."""
    vm = machine.vm
    assert vm is not None
    check_board(arrays["vm.board"])
    vm.boards.view(np.ndarray)[:] = arrays["vm.board"]
    vm.model_specific.view(np.ndarray)[:] = arrays["vm.model_specific"]
    p2m = arrays["vm.p2m"]
    if p2m.min() < 0 or p2m.max() >= machine.processor.ram_bytes >> 12:
        raise ValueError("vm.p2m")
    vm.p2m[:] = p2m
    vm.follow_p2m()
    set_owners(vm)
    restore_vm(vm, state)
    if vm.made_interpreter is not None:
        fill_interpreter(vm.made_interpreter, state["interpreter"], arrays)
    vm.physical.look()
    vm.restore_memory(arrays["vm.shadow"], state["shadow"])


def fill_python_state(machine: Machine, manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """What the machine keeps in Python objects."""
    state = manifest["machine"]
    machine.guest = (str(manifest["guest"]), str(manifest["guest_sha256"]))
    machine.outcome = None if state["outcome"] is None else str(state["outcome"])
    machine.has_firmware = within(state["has_firmware"], 0, 1) == 1
    machine.reboots = within(state["reboots"], 0, 1) == 1
    usual = state["usual_cycles"]
    machine.usual_cycles = None if usual is None else within(usual, 1, 1 << 56)
    machine.dialogue.restore(state["dialogue"], texts_of(arrays))
    machine.regions[:] = [
        Region(
            within(number, 0, 1 << 62),
            within(iterations, 0, 1 << 62),
            within(instructions, 0, 1 << 62),
            within(ticks, 0, 1 << 62),
            ledger_of(arrays, f"region{place}"),
            {reason: ExitCount(*row) for reason, row in exits_of(exits).items()},
        )
        for place, (number, iterations, instructions, ticks, exits) in enumerate(state["regions"])
    ]
    if state["open"] is not None:
        number, ticks, retired, exits = state["open"]
        numbers = within(number, 0, 1 << 62), within(ticks, 0, 1 << 62), within(retired, 0, 1 << 62)
        rows = {reason: ExitCount(*row) for reason, row in exits_of(exits).items()}
        machine.open_region = (*numbers, ledger_of(arrays, "open"), rows)
    restore_divergences(machine, state["divergences"])
    restore_looks(machine, state["looks"])


def texts_of(arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    """The texts of a dialogue."""
    return {name: arrays[name].tobytes() for name in NAMES}


def ledger_of(arrays: dict[str, np.ndarray], name: str) -> Ledger:
    """A ledger of the file."""
    return Ledger(arrays[f"{name}.count"].reshape(SHAPE).copy(), arrays[f"{name}.ticks"].reshape(SHAPE).copy())


# Scalar and array fields of the processor that are used as numbers of something, with their bounds.
BOUNDS = {
    "cpl": (0, 3), "mode": (0, N_MODES - 1), "mode_table": (0, N_MODES - 1), "event_vector": (0, 255),
    "idt_vector": (-1, 255), "probe_row": (0, MAX_ROWS - 1), "timer_vector": (0, 255), "cache_lines": (0, 1 << 52),
    "pam": (0, (1 << 56) - 1), "vga_rom_address": (0, 0xFFFFFFFF),
    "rip": (0, 0xFFFFFFFF), "ticks": (0, 1 << 61), "retired": (0, 1 << 61), "halted": (0, 1), "shadow": (0, 2),
    "world": (0, 2), "nested_kind": (0, 2), "nested_root": (0, (1 << 52) - 1), "nested_levels": (2, 4),
    "nested_large": (0, 1), "nested_no_execute": (0, 1), "address_space": (0, 0xFFFF), "tlb_tag": (0, N_TLB_TAGS - 1),
    "tlb_tag_victim": (0, N_TLB_TAGS - 2), "tlb_counter": (0, 1 << 61),
}  # fmt: skip


def check_processor(machine: Machine, arrays: dict[str, np.ndarray]) -> None:
    """No index of the processor's lies outside of what it indexes; raises ValueError."""
    fresh = machine.processor.state.view(np.ndarray)
    for name in IDENTITY_FIELDS:
        if arrays[f"cpu.{name}"].tobytes() != np.ascontiguousarray(fresh[name]).tobytes():
            raise ValueError(f"its {name} is not that of the profile")
    for name, (least, most) in BOUNDS.items():
        values = arrays[f"cpu.{name}"]
        if values.min() < least or values.max() > most:
            raise ValueError(f"its {name} is out of range")
    check_apics(arrays["cpu.apic"][0], arrays["cpu.io_apic"][0], fresh["apic"].reshape(-1)[0])
    check_tlbs(arrays, fresh)
    check_guests(arrays, fresh)
    if (arrays["cpu.mode_table"] != fresh["mode_table"].reshape(-1)).any() and machine.vm is None:
        raise ValueError("its mode_table is out of range")


def check_board(board: np.ndarray) -> None:
    """No index of a board's lies outside of what it indexes; raises ValueError."""
    row = board.view(BOARD)[0]
    good = 0 <= row["console_length"] <= CONSOLE_BYTES and 0 <= row["shutdown_progress"] < len(SHUTDOWN_WORD)
    good = good and row["ticks_per_second"] > 0 and row["clock"] >= 0 and row["decode"].max() < N_DEVICES
    pics = row["pic"]
    good = good and all(((pics[name] >= 0) & (pics[name] <= 0xFF)).all() for name in pics.dtype.names)
    for channel in row["pit"]:
        good = good and 0 <= channel["mode"] <= 5 and 0 <= channel["access"] <= 3
        good = good and (not channel["counting"] or channel["mode"] not in (2, 3) or channel["reload"] > 0)
        good = good and all(0 <= channel[name] <= 1 << 62 for name in channel.dtype.names)
    check_ide(row["ide"])
    if not good or not all(device_is_sound(device, most) for device, most in device_bounds(row)):
        raise ValueError("its devices are out of range")


# Fields of the devices' records that index something, or that must not be larger: the greatest values. Every other number
# of theirs is not negative.
DEVICE_BOUNDS = {
    "pci": {"address": 0xFFFFFFFF, "bus_master_base": 0xFFF0, "power_base": 0xFFC0},
    "cmos": {"address": 127},
    "keyboard": {
        "scan_first": SCAN_BYTES - 1, "scan_count": SCAN_BYTES, "response_first": RESPONSE_BYTES - 1,
        "response_count": RESPONSE_BYTES, "output": 255, "output_full": 1, "expected_by": 255, "parameter_of": 255,
    },
    "uart": {
        "received_first": FIFO_BYTES - 1, "received_count": FIFO_BYTES, "sent_length": SENT_BYTES, "divisor": 0xFFFF,
        "fifo_control": 255,
    },
    "vga": {
        "crtc_address": 31, "sequencer_address": 7, "graphics_address": 15, "attribute_address": 63, "dac_read": 767,
        "dac_write": 767,
    },
    "power": {},
}  # fmt: skip
BOARD_BOUNDS = {
    "bus_master_ports": 0xFFF0, "power_ports": 0xFFC0, "irq_levels": 0xFFFFFF, "irq_rises": 0xFFFFFF, "tick": 1 << 61,
    "device_deadline": NEVER, "poll_period": NEVER, "poll_deadline": NEVER,
}  # fmt: skip
MAY_BE_NEGATIVE = ("origin",)  # the tick at which a divider chain would have begun


def device_bounds(row: np.void) -> Iterator[tuple[np.void, dict[str, int]]]:
    """Each device's record of a board, with its bounds; the board's own fields at last."""
    for name, most in DEVICE_BOUNDS.items():
        for device in np.atleast_1d(row[name]):
            yield device, most
    yield row[list(BOARD_BOUNDS)], BOARD_BOUNDS


def device_is_sound(device: np.void, most: dict[str, int]) -> bool:
    """Whether the numbers of a record are within their bounds."""
    names = [name for name in device.dtype.names or () if device.dtype[name] == np.int64 and name not in MAY_BE_NEGATIVE]
    return all(0 <= device[name] <= most.get(name, 1 << 62) for name in names)
