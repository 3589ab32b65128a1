"""`x86virt gdb` as its users meet it: the real gdb in batch mode, a client that speaks the protocol, and nonsense."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from gdb_client import Talk, checked, machine_of, needs_gdb, run_gdb, talking
from hypothesis import given, settings
from hypothesis import strategies as st

from x86virt.gdb import target
from x86virt.gdb.framing import escape, unescape
from x86virt.gdb.server import Server
from x86virt.gdb.session import Left
from x86virt.gdb.travel import Travel
from x86virt.guests import find_guest

STRATEGIES = ("native", "trap-and-emulate")
SYMBOLS = find_guest("syscall").symbols
COMMANDS = """
info registers eax eip eflags
break syscall_int80
continue
info registers eip cpl
stepi
stepi
watch *(int*)&syscall_count
continue
continue
print *(int*)&syscall_count
info registers cycles
reverse-stepi
print *(int*)&syscall_count
info registers eip
reverse-continue
info registers
stepi
stepi
reverse-continue
reverse-continue
delete
monitor cycles
monitor walk esp
monitor gdt
monitor tlb
monitor where 3
monitor vmm
monitor ledger 4
monitor nothing-such
reverse-continue
info registers eip
break *pass
continue
x/2i $eip
delete
continue
info registers cycles instructions
continue
""".strip().splitlines()


def value_of(text: str, register: str, which: int = -1) -> int:
    """The value of a register in one of its appearances."""
    return int(re.findall(rf"^{register} +(0x[0-9a-f]+)", text, re.MULTILINE)[which], 16)


@needs_gdb
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_real_gdb_stops_steps_watches_and_goes_back_and_the_run_costs_what_it_costs(
    strategy: str, tmp_path: Path
) -> None:
    undisturbed = machine_of("syscall", strategy, "iterations=5")
    undisturbed.run()
    machine = machine_of("syscall", strategy, "iterations=5")
    text = run_gdb(machine, "syscall", COMMANDS, tmp_path)
    assert value_of(text, "eax", 0) == 0x2BADB002
    assert len(re.findall(r"Breakpoint 1, 0x\w+ in syscall_int80 \(\)", text)) >= 3
    assert "Hardware watchpoint 2: *(int*)&syscall_count" in text
    assert "Old value = 0\nNew value = 1" in text
    assert re.findall(r"^\$\d = (\d+)", text, re.MULTILINE) == ["1", "0"]
    assert value_of(text, "cr3") != 0
    assert value_of(text, "gdtr_base") == SYMBOLS["gdt"]
    assert re.search(r"page table \[\d+\] +at 0x\w+ +\w+  writable, supervisor, accessed, dirty", text)
    assert "32-bit TSS, busy" in text
    assert re.search(r"=> 0008:00\w{6} ", text)
    assert "no such command" in text
    assert ("kernel runs in ring 1" in text) == (strategy != "native")
    assert ("shadow" in text) == (strategy != "native")
    assert "No more reverse-execution history" in text
    assert re.search(r"Breakpoint \d, 0x\w+ in pass \(\)", text)
    assert "mov " in text
    assert "the guest has ended: halted" in text
    assert "exited normally" in text
    assert value_of(text, "cycles") == undisturbed.result().ticks // 64
    assert value_of(text, "instructions") == undisturbed.result().instructions
    assert machine.result().ledger == undisturbed.result().ledger
    assert machine.console() == undisturbed.console()


@needs_gdb
def test_the_command_serves_gdb_and_ends_with_it(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "x86virt", "gdb", "hello_pse", "--port", "0", "--once", "--memory", "2M"]
    server = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        first, second = server.stdout.readline(), server.stdout.readline()
        assert "waits for gdb on port" in first
        where = re.search(r"target remote (127\.0\.0\.1:\d+)", second)
        assert where is not None
        commands = ["-ex", f"target remote {where[1]}", "-ex", "stepi 3", "-ex", "info registers instructions"]
        found = subprocess.run(["gdb", "-q", "-nx", "-batch", *commands], capture_output=True, text=True, timeout=60, check=False)
        assert value_of(found.stdout, "instructions") == 3
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.communicate()


# -- the protocol -------------------------------------------------------------------------------------------------


def test_a_client_of_its_own_reads_and_writes_everything() -> None:
    travel = Travel(machine_of("syscall"))
    with talking(travel) as client:
        assert "PacketSize=" in client.ask("qSupported:swbreak+;hwbreak+;xmlRegisters=i386")
        assert client.ask("?") == "T05thread:1;"
        described = ""
        while not described or described[0] == "m":
            piece = client.ask(f"qXfer:features:read:target.xml:{max(0, len(described) - 1):x},100")
            described = piece[0] + described[1:] + piece[1:]
        assert described[1:].encode() == target.description()
        registers = client.ask("g")
        assert len(registers) == 2 * sum(register.octets for register in target.REGISTERS)
        assert registers[:8] == "02b0ad2b"
        assert client.ask("p0") == "02b0ad2b"
        assert client.ask("P0=78563412") == "OK"
        assert client.ask("p0") == "78563412"
        assert client.ask("P0=02b0ad2b") == "OK"
        cr3 = target.NUMBER["cr3"]
        assert client.ask(f"P{cr3:x}=00100000") == "E01"
        assert client.ask("G" + client.ask("g")) == "OK"
        assert client.ask("m100000,8")[:8] == "02b0ad1b"
        assert client.ask("M180000,3:a1b2c3") == "OK"
        assert client.ask("m180000,4") == "a1b2c300"
        assert client.ask(b"X180000,4:" + escape(b"}#$*")) == "OK"
        assert client.ask("m180000,4") == b"}#$*".hex()
        assert client.ask("vMustReplyEmpty") == client.ask("qNothing") == client.ask("!") == ""
        assert (client.ask("qfThreadInfo"), client.ask("qsThreadInfo"), client.ask("qC")) == ("m1", "l", "QC1")
        entry = SYMBOLS["syscall_int80"]
        assert client.ask(f"Z0,{entry:x},1") == "OK"
        assert client.ask("vCont;c") == "T05swbreak:;thread:1;"
        assert client.ask(f"z0,{entry:x},1") == "OK"
        assert client.ask(f"Z2,{SYMBOLS['syscall_count']:x},4") == "OK"
        assert client.ask("c") == f"T05watch:{SYMBOLS['syscall_count']:x};thread:1;"
        assert client.ask("bc") == f"T05watch:{SYMBOLS['syscall_count']:x};thread:1;"
        eip = target.NUMBER["eip"]
        assert client.ask(f"p{eip:x}") == entry.to_bytes(4, "little").hex()
        assert client.ask(f"vCont;r{entry:x},{entry + 11:x}:1;c") == f"T05watch:{SYMBOLS['syscall_count']:x};thread:1;"
        assert client.ask(f"vCont;r{entry:x},{entry + 11:x}:1;c") == "T05thread:1;"
        assert client.ask(f"p{eip:x}") == (entry + 11).to_bytes(4, "little").hex()
        assert client.ask("bs") == "T05thread:1;"
        assert client.ask("QStartNoAckMode") == "OK"
        assert "monitor commands" in client.monitor("")
        names = "regs/where/cycles/ledger since/events/walk 0x101000/tlb/gdt/ldt/idt/tss/devices/vmm/console"
        for name in names.split("/"):
            assert len(client.monitor(name)) > 10
        assert "neither a number" in client.monitor("walk nowhere")
        assert "32 bits" in client.monitor("walk -1")
        assert "a number from 1" in client.monitor("where 0")
        assert client.ask("z2,0,0") == "OK"
        assert client.ask("D") == "OK"


def test_breakpoints_beyond_what_there_is_room_for_are_refused() -> None:
    with talking(Travel(machine_of("syscall"))) as client:
        answers = {client.ask(f"Z0,{0x100000 + number:x},1") for number in range(64)}
        assert answers == {"OK"}
        assert client.ask("Z0,100,1") == "E1c"
        assert client.ask("Z0,100000,1") == "OK"
        assert client.ask("Z7,100000,1") == "E16"


def test_a_running_machine_is_interrupted_and_survives_a_client_that_goes_away() -> None:
    travel = Travel(machine_of("irq", command_line="iterations=1000000000"))
    talk = Talk(travel)
    talk.client.send(checked(b"c"))
    time.sleep(0.3)
    talk.client.send(b"\x03")
    assert talk.client.packet() == "T02thread:1;"
    here = travel.place
    assert here.retired > 0
    talk.client.send(checked(b"c"))
    time.sleep(0.2)
    assert talk.end() is Left.DETACHED
    assert travel.place > here
    with talking(travel) as client:
        assert client.ask("?") == "T05thread:1;"
        assert client.ask("s") == "T05thread:1;"


def test_a_server_serves_one_client_after_the_other_until_one_kills_the_machine() -> None:
    server = Server(0)
    travel = Travel(machine_of("hello_pse"))
    heard: list[str] = []
    thread = threading.Thread(target=server.serve, args=(travel, False, heard.append), daemon=True)
    thread.start()
    import socket

    from gdb_client import Client

    for last in ("D", "k"):
        client = Client(socket.create_connection(("127.0.0.1", server.port), 30))
        assert client.ask("s") == "T05thread:1;"
        client.ask(last)
        client.stream.close()
    thread.join(30)
    assert not thread.is_alive()
    assert travel.place.retired == 2
    assert len(heard) == 2


def test_a_port_that_is_taken_is_said_in_one_line(x86virt) -> None:
    server = Server(0)
    answer = x86virt("gdb", "hello", "--port", str(server.port))
    server.socket.close()
    assert answer.status == 2
    assert answer.err.count("\n") == 1
    assert "cannot be listened on" in answer.err


def test_what_cannot_be_taken_back_or_started_is_refused_in_one_line(x86virt) -> None:
    for arguments in (("hello", "--disk-write"), (), ("hello", "-s", "all"), ("hello", "--port", "65536"), ("no-such",)):
        answer = x86virt("gdb", *arguments)
        assert (answer.status, answer.err.count("\n"), answer.out) == (2, 1, "")


# -- nonsense -----------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    "? g G p P m M X c C s S Z0, Z1, Z2, Z3, Z4, Z9, z0, z4, D H T A R k ! bc bs vCont; vCont;s vCont;c vCont;r vKill; vRun; "
    "qSupported: qXfer:features:read: qXfer:features:read:target.xml: qXfer:memory-map:read:: qRcmd, qRcmd,77 qCRC: qC "
    "qThreadExtraInfo, qSymbol: QStartNoAckMode QPassSignals: _M x".split()
)
HEX = st.text("0123456789abcdefABCDEFxg-,;:=.", max_size=40)
NUMBERS = st.sampled_from(
    "0,1 ffffffff,ffffffff 100000,7fffffffffffffff -1,4 0,0 fffffff0,20 100000,4:00 3=00 8=00001000 0,400:zz".split()
)
ANY_TEXT = st.text(max_size=20, alphabet=st.characters(max_codepoint=255))
PAYLOADS = st.builds(
    lambda name, rest: (name + rest).encode("latin-1"), NAMES, st.one_of(HEX, NUMBERS, ANY_TEXT)
)
PIECES = st.one_of(
    PAYLOADS.map(checked),
    PAYLOADS.map(lambda payload: b"$" + payload + b"#00"),
    PAYLOADS.map(lambda payload: checked(payload)[:-2]),
    PAYLOADS.map(lambda payload: b"$" + payload),
    st.binary(max_size=60),
    st.sampled_from([b"+", b"-", b"---", b"\x03", b"$#00", b"$", b"#", b"$" + b"A" * 70_000, b"}" * 99, b"$}#7d", b"\x00" * 500]),
)


@given(pieces=st.lists(PIECES, max_size=12))
@settings(max_examples=300)
def test_nonsense_neither_ends_nor_hangs_the_server(pieces: list[bytes]) -> None:
    talk = Talk(NONSENSE_TRAVEL)
    try:
        for piece in pieces:
            talk.client.send(piece)
    except OSError:
        pass  # it has hung up
    talk.end()


@given(octets=st.binary(max_size=200))
def test_escaped_bytes_come_back(octets: bytes) -> None:
    assert unescape(escape(octets)) == octets


NONSENSE_TRAVEL = Travel(machine_of("hello_pse"))


def test_after_nonsense_a_client_is_served_as_ever() -> None:
    with talking(NONSENSE_TRAVEL) as client:
        assert client.ask("?").startswith("T")
        assert len(client.ask("g")) == 2 * sum(register.octets for register in target.REGISTERS)
