/* GDT, IDT and TSS: flat segments, loaded once; each table alone in its page, because a VMM may write-protect it. */
#include "descriptors.h"
#include "../include/machine.h"

#define GATES 256
#define STUBS 48                /* 32 exceptions, 16 interrupt lines */
#define GATE_OF_KERNEL 0x8E     /* present 32-bit interrupt gate: IF is cleared on entry */
#define GATE_OF_PROGRAMS 0xEE   /* the same, and ring 3 may use it by INT */
#define TSS_SELECTOR 0x28
#define TSS_BYTES 104
#define TSS_AVAILABLE 0x89
#define MSR_SYSENTER_CS 0x174
#define MSR_SYSENTER_ESP 0x175
#define MSR_SYSENTER_EIP 0x176

#define IN_TABLES __attribute__((section(".bss.tables"), aligned(PAGE_BYTES)))

struct descriptor {
    uint32_t low, high;
};

struct task_state {             /* only what a 32-bit TSS must say when nobody switches tasks by hardware */
    uint32_t link, esp0, ss0;
    uint32_t rest[22];
    uint32_t io_map;            /* offset in the upper half */
};

struct __attribute__((packed)) table_pointer {
    uint16_t limit;
    const void *address;
};

extern const uint32_t machine_trap_stubs[STUBS];
extern void machine_system_call_entry(void), machine_sysenter_entry(void);

union { struct descriptor entry[6]; uint8_t page[PAGE_BYTES]; } gdt IN_TABLES;
union { struct descriptor entry[GATES]; uint8_t page[PAGE_BYTES]; } idt IN_TABLES;
union { struct task_state state; uint8_t page[PAGE_BYTES]; } tss IN_TABLES;

static const struct descriptor flat_segments[] = {
    {0, 0},
    {0x0000FFFF, 0x00CF9A00},   /* KERNEL_CS: DPL 0, readable */
    {0x0000FFFF, 0x00CF9200},   /* KERNEL_DS: DPL 0, writable */
    {0x0000FFFF, 0x00CFFA00},   /* USER_CS: DPL 3 */
    {0x0000FFFF, 0x00CFF200},   /* USER_DS: DPL 3 */
};

static void set_gate(unsigned vector, uint32_t handler, uint32_t attributes)
{
    idt.entry[vector].low = KERNEL_CS << 16 | (handler & 0xFFFF);
    idt.entry[vector].high = (handler & 0xFFFF0000) | attributes << 8;
}

static void fill_gdt(void)
{
    const uint32_t base = (uint32_t)&tss;

    for (unsigned number = 0; number < sizeof flat_segments / sizeof flat_segments[0]; number++)
        gdt.entry[number] = flat_segments[number];
    gdt.entry[TSS_SELECTOR / 8].low = base << 16 | (TSS_BYTES - 1);
    gdt.entry[TSS_SELECTOR / 8].high = (base & 0xFF000000) | TSS_AVAILABLE << 8 | (base >> 16 & 0xFF);
    tss.state.ss0 = KERNEL_DS;
    tss.state.io_map = TSS_BYTES << 16; /* beyond the limit: no port is open to ring 3 */
}

static void fill_idt(void)
{
    for (unsigned vector = 0; vector < STUBS; vector++)
        set_gate(vector, machine_trap_stubs[vector], GATE_OF_KERNEL);
    set_gate(VECTOR_BREAKPOINT, machine_trap_stubs[VECTOR_BREAKPOINT], GATE_OF_PROGRAMS);
    set_gate(VECTOR_SYSTEM_CALL, (uint32_t)machine_system_call_entry, GATE_OF_PROGRAMS);
}

/* Load the segment registers: CS and SS of the kernel; the others get the user data selector, which ring 0 may use and a
   trap from ring 3 does not change, so that no trap handler needs to save them. */
static void load_segments(void)
{
    __asm__ volatile("ljmp %0, $1f\n1:\tmovl %1, %%ss\n\tmovl %2, %%ds\n\tmovl %2, %%es\n\tmovl %2, %%fs\n\tmovl %2, %%gs"
                     : : "i"(KERNEL_CS), "r"(KERNEL_DS), "r"(USER_DS) : "memory");
}

void descriptors_load(void)
{
    const struct table_pointer gdt_pointer = {sizeof gdt.entry - 1, &gdt};
    const struct table_pointer idt_pointer = {sizeof idt.entry - 1, &idt};

    fill_gdt();
    fill_idt();
    __asm__ volatile("lgdt %0" : : "m"(gdt_pointer));
    load_segments();
    __asm__ volatile("lldt %w0" : : "r"(0));
    __asm__ volatile("ltr %w0" : : "r"(TSS_SELECTOR));
    __asm__ volatile("lidt %0" : : "m"(idt_pointer));
}

static void write_msr(uint32_t number, uint32_t value)
{
    __asm__ volatile("wrmsr" : : "c"(number), "a"(value), "d"(0));
}

void descriptors_open_sysenter(void)
{
    write_msr(MSR_SYSENTER_CS, KERNEL_CS);
    write_msr(MSR_SYSENTER_ESP, (uint32_t)&tss.state.esp0);
    write_msr(MSR_SYSENTER_EIP, (uint32_t)machine_sysenter_entry);
}

void machine_set_kernel_stack(uint32_t top)
{
    tss.state.esp0 = top;
}
