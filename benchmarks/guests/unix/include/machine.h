/* The machine, as the kernel sees it: everything that only ring 0 may do, and every store that a processor or a VMM looks
   at. Two folders stand behind it: `native/` is the bare machine, `xen/` asks a hypervisor instead. Nothing outside of the two
   knows a privileged instruction or a hypercall. Each has a `machine_here.h` with what costs nothing: its selectors, and the
   functions here that are inline. */
#ifndef MACHINE_H
#define MACHINE_H

#include <stdint.h>

/* What lies on the kernel stack after a trap from ring 3 (the last two are absent after a trap in the kernel). */
struct trap_frame {
    uint32_t edi, esi, ebp, esp_of_pushad, ebx, edx, ecx, eax;
    uint32_t vector, error;
    uint32_t eip, cs, eflags, esp, ss;
};

#define VECTOR_DIVIDE_ERROR 0
#define VECTOR_DEBUG 1
#define VECTOR_BREAKPOINT 3
#define VECTOR_INVALID_OPCODE 6
#define VECTOR_GENERAL_PROTECTION 13
#define VECTOR_PAGE_FAULT 14
#define VECTOR_TIMER 0x20
#define VECTOR_SYSTEM_CALL 0x80 /* INT 0x80 */
#define VECTOR_SYSENTER 0x81    /* no gate: the mark of a frame that SYSENTER made, left by SYSEXIT */

#define FAULT_WRITE 2           /* error code of a page fault */
#define FAULT_PRESENT 1

#define EFLAGS_FIXED 0x002
#define EFLAGS_IF 0x200
#define EFLAGS_OF_PROGRAMS 0xCD5 /* CF PF AF ZF SF DF OF: what a program may set in its saved flags */

#define ENTRY_P 0x001           /* page-table and page-directory entries */
#define ENTRY_W 0x002
#define ENTRY_U 0x004
#define ENTRY_A 0x020
#define ENTRY_D 0x040
#define ENTRY_G 0x100
#define ENTRY_COPY 0x200        /* ours (bit 9): shared, to be copied at the first write */
#define ENTRY_FRAME 0xFFFFF000u

/* Descriptor tables, interrupt controllers, SYSENTER where the processor has it; everything is masked. */
void machine_start(void);
int machine_has_sysenter(void);
int machine_has_global_pages(void);

/* The lowest frame that is free, if the kernel's image ends here: others may have left something behind it. */
static inline uint32_t machine_free_from(uint32_t kernel_end);

/* Turn paging on with this page directory. */
void machine_start_paging(uint32_t root);

/* Store an entry of a page directory or page table. Every change of an address space comes through here. */
void machine_set_entry(uint32_t *entry, uint32_t value);

/* What an entry says. The tables may name frames otherwise than the kernel does: nobody else reads them. */
static inline uint32_t machine_entry(const uint32_t *entry);

/* Use this page directory; what the TLB knows of pages that are not global is forgotten. */
void machine_load_root(uint32_t root);

/* Forget what the TLB knows of one page: after an entry that was present has changed. */
void machine_flush_page(uint32_t address);

/* Changes of the address space in use, and what is to be forgotten, may wait until this is called or a root is loaded. */
static inline void machine_commit(void);

/* No program will run in this space before its root is loaded again: its tables may be emptied, given back, built anew. */
static inline void machine_retire_root(uint32_t root);

/* The linear address of the last page fault. */
uint32_t machine_fault_address(void);

/* The stack that the next trap from ring 3 begins on. */
void machine_set_kernel_stack(uint32_t top);

/* Let interrupts in until one has come. At all other times the kernel runs with interrupts off. */
void machine_wait_for_interrupt(void);

/* Start TIMER_HZ ticks a second; acknowledge one. */
void machine_start_timer(void);
void machine_end_of_interrupt(void);

/* Text, one character; and the end, with a verdict for those who started us (0: all is well). */
void machine_put_character(char character);
_Noreturn void machine_shut_down(uint32_t code);

/* The code of the system call page (position independent): as fast as this processor can. */
const void *machine_call_page(uint32_t *bytes);

#include "machine_here.h"

#endif
