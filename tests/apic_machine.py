"""A bare machine with APICs, and models of them written from the manuals: SDM volume 3 chapter 10, Intel 82093AA data sheet.

All 256 vectors have handlers within the hook range, so that an interrupt that is taken stops the run and says its vector.
"""

from bare_machine import CODE, CODE_0, EAX, ESP, HANDLERS, HLT, IDT, IF, STACK, BareMachine
from descriptor_machine import gate

from x86virt.core.layout import HALTED_FOREVER, HOOK, OK

LOCAL, IO = 0xFEE00000, 0xFEC00000
ID, TPR, PPR, EOI, LDR, DFR, SVR, ISR, TMR, IRR, ESR = 0x20, 0x80, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0, 0x100, 0x180, 0x200, 0x280
ICR, ICR_HIGH, LVT_TIMER, LINT0, LVT_ERROR, INITIAL, CURRENT, DIVIDE = 0x300, 0x310, 0x320, 0x350, 0x370, 0x380, 0x390, 0x3E0
ENABLE, MASK, PERIODIC, LEVEL, LOW, REMOTE = 0x100, 1 << 16, 1 << 17, 1 << 15, 1 << 13, 1 << 14
SELF = 1 << 18


def le(value, n=4):
    """A little-endian number."""
    return (value & (1 << 8 * n) - 1).to_bytes(n, "little")


def store(address, value):
    """MOV dword [address], value."""
    return b"\xc7\x05" + le(address) + le(value)


def load(address):
    """MOV EAX, [address]."""
    return b"\xa1" + le(address)


class ApicMachine(BareMachine):
    """Each helper executes guest code with interrupts closed, but `take`."""

    def __init__(self, stepping=False, profile="p4_prescott"):
        super().__init__(profile)
        self.stepping = stepping
        self.processor.fit_apic(True)
        self.power_on()

    def power_on(self):
        """A fresh machine; interrupt gates for all vectors."""
        super().power_on()
        for vector in range(256):
            self.put(IDT + 8 * vector, gate(CODE_0, HANDLERS + 16 * vector, 14), 8)
        self.cpu.idtr_limit = 256 * 8 - 1
        self.unlimited()

    def run_to_end(self, address=CODE):
        """Run to HLT or a handler, in blocks or by single instructions."""
        outcome = self.go(address, single=self.stepping)
        while self.stepping and outcome == OK:
            outcome = self.processor.run(single=True)
        return outcome

    def execute(self, code):
        """Execute code with interrupts closed; returns EAX."""
        self.gpr[ESP] = STACK + 0x2000
        self.eflags = 2
        self.write_code(code + HLT)
        assert self.run_to_end() == HALTED_FOREVER, self.stopped_at(HOOK)
        return int(self.gpr[EAX])

    def write(self, register, value):
        """Write a register of the local APIC."""
        self.execute(store(LOCAL + register, value))

    def read(self, register):
        """Read one."""
        return self.execute(load(LOCAL + register))

    def words(self, register):
        """The vectors that are set in ISR, TMR or IRR."""
        return {32 * n + bit for n in range(8) for bit in range(32) if self.read(register + 16 * n) >> bit & 1}

    def io_write(self, register, value):
        """Write a register of the I/O APIC through its window."""
        self.execute(store(IO, register) + store(IO + 0x10, value))

    def io_read(self, register):
        """Read one."""
        return self.execute(store(IO, register) + load(IO + 0x10))

    def take(self):
        """Open interrupts for a moment: the vector that is taken, None if none is."""
        self.gpr[ESP] = STACK + 0x2000
        self.eflags = 2 | IF
        self.write_code(b"\x90\x90\xfa" + HLT)  # NOP, NOP, CLI, HLT
        outcome = self.run_to_end()
        return None if outcome == HALTED_FOREVER else (int(self.cpu.rip) - HANDLERS) // 16

    def drive(self, line, level):
        """A device drives an interrupt line of the board."""
        board = self.processor.board
        if level and not board.irq_levels >> line & 1:
            board.irq_rises |= 1 << line
        board.irq_levels = board.irq_levels | 1 << line if level else board.irq_levels & ~(1 << line)


class LocalModel:
    """Requests, service and priorities by sections 10.8.3 to 10.8.5."""

    def __init__(self):
        self.requested, self.serving, self.levels = set(), set(), set()
        self.priority, self.enabled, self.errors, self.shown_errors = 0, False, 0, 0

    def processor_priority(self):
        """Section 10.8.3.1."""
        serving = max(self.serving, default=0)
        return self.priority if self.priority >> 4 >= serving >> 4 else serving & 0xF0

    def accept(self, vector, level=False):
        """A message for a fixed interrupt."""
        if not self.enabled:
            return False
        if vector < 16:
            self.errors |= 0x40
            return False
        self.requested.add(vector)
        (self.levels.add if level else self.levels.discard)(vector)
        return True

    def send_to_itself(self, vector):
        """An IPI with the shorthand self."""
        if vector < 16:
            self.errors |= 0x20
        else:
            self.accept(vector)

    def take(self):
        """What the processor takes with interrupts open."""
        vector = max(self.requested, default=0)
        if vector >> 4 <= self.processor_priority() >> 4:
            return None
        self.requested.remove(vector)
        self.serving.add(vector)
        return vector

    def end(self):
        """EOI; the level-triggered vector that the I/O APIC hears of."""
        if not self.serving:
            return None
        vector = max(self.serving)
        self.serving.remove(vector)
        return vector if vector in self.levels else None


class InputModel:
    """One input of the I/O APIC, by the data sheet's description of the redirection table."""

    def __init__(self, local, logical_destination=0):
        self.local, self.ldr = local, logical_destination
        self.entry, self.destination, self.remote, self.level, self.edge = MASK, 0, False, 0, False

    def for_us(self):
        """Does the destination name APIC 0?"""
        if self.destination == 0xFF:
            return True
        return bool(self.destination & self.ldr) if self.entry >> 11 & 1 else self.destination == 0

    def write(self, entry):
        """The low half is written. What happened on a masked edge-triggered input is forgotten."""
        self.look()
        self.entry = entry
        if not entry & LEVEL:
            self.remote = False
        self.look()

    def drive(self, level):
        """The line moves: an edge towards the active level counts, unless it is masked."""
        active = 0 if self.entry & LOW else 1
        if level != self.level and level == active:
            self.edge = True
        self.level = level

    def look(self):
        """The interrupt is sent."""
        edge, self.edge = self.edge, False
        mode = self.entry >> 8 & 7
        if self.entry & MASK or mode not in (0, 1) or not self.for_us():
            return
        if self.entry & LEVEL:
            if self.level == (0 if self.entry & LOW else 1) and not self.remote:
                self.remote = self.local.accept(self.entry & 0xFF, True)
        elif edge:
            self.local.accept(self.entry & 0xFF)

    def ended(self, vector):
        """The local APIC's EOI message."""
        if vector is not None and vector == self.entry & 0xFF and self.entry & LEVEL:
            self.remote = False
