/* The bare machine: one privileged instruction a function. */
#include "../include/machine.h"
#include "../include/sizes.h"
#include "descriptors.h"

#define CR0_VALUE 0x80010033u   /* PG, WP, NE, ET, MP, PE: WP, so that the kernel too faults on pages to be copied */
#define CR4_PGE 0x80u
#define CPUID_SEP (1u << 11)
#define CPUID_PGE (1u << 13)

#define PIC1_COMMAND 0x20
#define PIC1_DATA 0x21
#define PIC2_COMMAND 0xA0
#define PIC2_DATA 0xA1
#define ICW1_INIT_ICW4 0x11
#define ICW4_8086 0x01
#define END_OF_INTERRUPT 0x20
#define PIT_CHANNEL_0 0x40
#define PIT_CONTROL 0x43
#define PIT_MODE_2 0x34
#define PIT_HZ 1193182
#define PORT_CONSOLE 0xE9
#define PORT_VERDICT 0xF4
#define PORT_SHUTDOWN 0x8900

extern const uint8_t call_page_int[], call_page_int_end[], call_page_sysenter[], call_page_sysenter_end[];

static uint32_t features;

static void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void read_features(void)
{
    uint32_t eax = 1, ebx, ecx;

    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "=c"(ecx), "=d"(features));
}

/* Lines 0 to 15 at vectors 0x20 to 0x2F, all masked. */
static void mask_interrupts(void)
{
    out8(PIC1_COMMAND, ICW1_INIT_ICW4);
    out8(PIC2_COMMAND, ICW1_INIT_ICW4);
    out8(PIC1_DATA, VECTOR_TIMER);
    out8(PIC2_DATA, VECTOR_TIMER + 8);
    out8(PIC1_DATA, 1 << 2);    /* the second hangs on line 2 of the first */
    out8(PIC2_DATA, 2);
    out8(PIC1_DATA, ICW4_8086);
    out8(PIC2_DATA, ICW4_8086);
    out8(PIC1_DATA, 0xFF);
    out8(PIC2_DATA, 0xFF);
}

void machine_start(void)
{
    read_features();
    descriptors_load();
    mask_interrupts();
    if (machine_has_sysenter())
        descriptors_open_sysenter();
}

int machine_has_sysenter(void)
{
    return (features & CPUID_SEP) != 0;
}

int machine_has_global_pages(void)
{
    return (features & CPUID_PGE) != 0;
}

const void *machine_call_page(uint32_t *bytes)
{
    if (machine_has_sysenter()) {
        *bytes = (uint32_t)(call_page_sysenter_end - call_page_sysenter);
        return call_page_sysenter;
    }
    *bytes = (uint32_t)(call_page_int_end - call_page_int);
    return call_page_int;
}

void machine_start_paging(uint32_t root)
{
    uint32_t cr4;

    machine_load_root(root);
    __asm__ volatile("movl %0, %%cr0" : : "r"(CR0_VALUE) : "memory");
    if (machine_has_global_pages()) {
        __asm__ volatile("movl %%cr4, %0" : "=r"(cr4));
        __asm__ volatile("movl %0, %%cr4" : : "r"(cr4 | CR4_PGE) : "memory");
    }
}

void machine_set_entry(uint32_t *entry, uint32_t value)
{
    *(volatile uint32_t *)entry = value;
}

void machine_load_root(uint32_t root)
{
    __asm__ volatile("movl %0, %%cr3" : : "r"(root) : "memory");
}

void machine_flush_page(uint32_t address)
{
    __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
}

uint32_t machine_fault_address(void)
{
    uint32_t address;

    __asm__ volatile("movl %%cr2, %0" : "=r"(address));
    return address;
}

void machine_wait_for_interrupt(void)
{
    __asm__ volatile("sti; hlt; cli" : : : "memory");
}

void machine_start_timer(void)
{
    const uint16_t divisor = PIT_HZ / TIMER_HZ;

    out8(PIT_CONTROL, PIT_MODE_2);
    out8(PIT_CHANNEL_0, divisor & 0xFF);
    out8(PIT_CHANNEL_0, divisor >> 8);
    mask_interrupts();          /* forgets edges of before */
    out8(PIC1_DATA, 0xFE);
}

void machine_end_of_interrupt(void)
{
    out8(PIC1_COMMAND, END_OF_INTERRUPT);
}

void machine_put_character(char character)
{
    out8(PORT_CONSOLE, (uint8_t)character);
}

_Noreturn void machine_shut_down(uint32_t code)
{
    out8(PORT_VERDICT, (uint8_t)code);
    for (const char *word = "Shutdown"; *word; word++)
        out8(PORT_SHUTDOWN, (uint8_t)*word);
    for (;;)
        __asm__ volatile("cli; hlt");
}
