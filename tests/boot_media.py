"""Boot media that the tests make: a disk with GRUB and a kernel on it, and the small file system that Linux starts from."""

from __future__ import annotations

import io
import re
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

from debian_packages import Missing, file_of

SECTOR = 512
FIRST_PARTITION = 2048  # sectors
DISK_BYTES = 16 << 20
PARTITION_TABLE, PARTITION_BYTES = 446, 64
BOOTABLE, LINUX_PARTITION = 0x80, 0x83
SIGNATURE = b"\x55\xaa"
NO_CYLINDERS = b"\xfe\xff\xff"  # a place that only its sector number gives

GRUB_MODULES = "biosdisk part_msdos tar serial terminal multiboot linux normal echo minicmd ls boot halt reboot"
GRUB_SETTINGS = """\
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
set root=(hd0,msdos1)
"""

CPIO_FILE, CPIO_FOLDER, CPIO_LINK = 0o100755, 0o040755, 0o120777
INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /dev /proc /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox --install -s /bin
export PATH=/bin PS1='shell# '
for module in $(cat /modules/order); do insmod /modules/$module; done
exec /bin/busybox setsid /bin/busybox cttyhack /bin/busybox sh
"""


def grub_disk(folder: Path, files: dict[str, bytes]) -> bytes:
    """A disk whose master boot record is GRUB's, with `files` on its first partition, a tar archive that GRUB reads.

    Raises debian_packages.Missing.
    """
    return partitioned_disk(files, grub_file("boot.img").read_bytes(), grub_core(folder))


def partitioned_disk(files: dict[str, bytes], boot_sector: bytes = b"", core: bytes = b"") -> bytes:
    """A disk with `files` on its first partition, a tar archive; `core` lies between the boot sector and it."""
    boot = bytearray(boot_sector.ljust(SECTOR, b"\0"))
    boot[-len(SIGNATURE) :] = SIGNATURE
    partition = struct.pack(
        "<B3sB3sII", BOOTABLE, NO_CYLINDERS, LINUX_PARTITION, NO_CYLINDERS, FIRST_PARTITION,
        DISK_BYTES // SECTOR - FIRST_PARTITION,
    )  # fmt: skip
    boot[PARTITION_TABLE : PARTITION_TABLE + PARTITION_BYTES] = partition.ljust(PARTITION_BYTES, b"\0")
    disk = bytearray(DISK_BYTES)
    disk[:SECTOR] = boot
    disk[SECTOR : SECTOR + len(core)] = core
    archive = tar_archive(files)
    place = FIRST_PARTITION * SECTOR
    disk[place : place + len(archive)] = archive
    return bytes(disk)


def grub_file(name: str) -> Path:
    """A file of GRUB for the PC's BIOS."""
    return file_of("grub-pc-bin", f"usr/lib/grub/i386-pc/{name}")


def grub_core(folder: Path) -> bytes:
    """GRUB's core image with the modules that it needs, for the sectors behind the master boot record."""
    tool = shutil.which("grub-mkimage") or str(file_of("grub-common", "usr/bin/grub-mkimage"))
    settings, core = folder / "early.cfg", folder / "core.img"
    settings.write_text(GRUB_SETTINGS, encoding="utf-8")
    modules = grub_file("boot.img").parent
    command = [tool, "-O", "i386-pc", "-d", str(modules), "-p", "(hd0,msdos1)/", "-c", str(settings), "-o", str(core)]
    done = subprocess.run([*command, *GRUB_MODULES.split()], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"grub-mkimage made no image ({done.stderr.strip()})")
    content = core.read_bytes()
    assert len(content) <= (FIRST_PARTITION - 1) * SECTOR
    return content


def tar_archive(files: dict[str, bytes]) -> bytes:
    """A tar archive of files by name."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def busybox_initrd(kernel: Path, drivers: tuple[str, ...] = ()) -> bytes:
    """A cpio archive with a static busybox for i386, whose init loads drivers and ends in a shell on the console.

    `kernel` is the kernel's image in the unpacked package that also holds the drivers' modules. Raises Missing.
    """
    modules = modules_in_order(kernel.parent.parent, drivers)
    entries = [
        ("bin", CPIO_FOLDER, b""),
        ("bin/busybox", CPIO_FILE, file_of("busybox-static", "bin/busybox", foreign=True).read_bytes()),
        ("modules", CPIO_FOLDER, b""),
        ("modules/order", CPIO_FILE, "\n".join(modules).encode()),
        *((f"modules/{name}", CPIO_FILE, content) for name, content in modules.items()),
        ("init", CPIO_FILE, INIT.encode()),
        ("TRAILER!!!", 0, b""),
    ]
    return b"".join(cpio_entry(number, *entry) for number, entry in enumerate(entries, 1))


def modules_in_order(root: Path, drivers: tuple[str, ...]) -> dict[str, bytes]:
    """The kernel modules of drivers and of what they need, each behind all that it needs. Raises Missing."""
    modules: dict[str, bytes] = {}
    for driver in drivers:
        spelling = re.sub("[-_]", "[-_]", driver)
        found = next(root.glob(f"lib/modules/*/kernel/**/{spelling}.ko"), None)
        if found is None:
            raise Missing(f"the kernel's package holds no module {driver}")
        content = found.read_bytes()
        needed = re.search(rb"\0depends=([^\0]*)\0", content)
        if needed is not None and needed[1]:
            modules |= modules_in_order(root, tuple(needed[1].decode().split(",")))
        modules[f"{driver}.ko"] = content
    return modules


def cpio_entry(inode: int, name: str, mode: int, content: bytes) -> bytes:
    """One file of a cpio archive in the "new ASCII" format: 13 numbers in hex, name and content on boundaries of four."""
    label = name.encode() + b"\0"
    numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(label), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + label
    head += bytes(-len(head) % 4)
    return head + content + bytes(-len(content) % 4)
