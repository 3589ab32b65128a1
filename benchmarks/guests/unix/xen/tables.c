/* Page tables on Xen, as XenoLinux keeps them.

   The tables of a space are built by plain stores, with machine frames in their entries. Before the space is loaded first, its
   pages become read-only to us and the hypervisor is asked to pin the whole: it checks every entry, once. From then on each
   change is a request, which waits in the queue as long as nobody can notice. When the space is retired it is unpinned, and
   its pages are ours again. */
#include "tables.h"

#include "../include/abi.h"
#include "../include/machine.h"

#define ENTRIES 1024
#define TABLE_SPAN (ENTRIES * PAGE_BYTES)
#define KERNEL_PAGE (ENTRY_P | ENTRY_A | ENTRY_D)

enum kind { PLAIN, TABLE, ROOT }; /* of a frame: memory of ours, or a table that is the hypervisor's as long as it is one */

union shared_page shared_page __attribute__((section(".bss.tables"), aligned(PAGE_BYTES)));

static uint8_t kinds[MEMORY_BYTES / PAGE_BYTES];
static uint32_t kernel_root;    /* the space without a program, which is never retired */
static uint32_t loaded;         /* the root in use */

static uint32_t machine_frame(uint32_t address)
{
    return ((const uint32_t *)start->mfn_list)[address / PAGE_BYTES];
}

/* An entry, or any address, by machine frames. */
static uint32_t to_machine(uint32_t value)
{
    return machine_frame(value) * PAGE_BYTES | (value & ~ENTRY_FRAME);
}

static enum kind kind_of(uint32_t address)
{
    return kinds[address / PAGE_BYTES];
}

/* Give a page to the hypervisor as a table. */
static void give(uint32_t page, enum kind kind)
{
    kinds[page / PAGE_BYTES] = (uint8_t)kind;
    queue_mapping(page, to_machine(page | KERNEL_PAGE), UVMF_NONE);
}

static void take_back(uint32_t page, uint32_t flush)
{
    kinds[page / PAGE_BYTES] = PLAIN;
    queue_mapping(page, to_machine(page | KERNEL_PAGE | ENTRY_W), flush);
}

/* Do something with each table of the program's part of a space. */
static void for_each_table(uint32_t root, void (*what)(uint32_t table))
{
    for (unsigned index = USER_START / TABLE_SPAN; index < USER_END / TABLE_SPAN; index++) {
        const uint32_t entry = machine_entry((uint32_t *)root + index);

        if (entry & ENTRY_P)
            what(entry & ENTRY_FRAME);
    }
}

static void give_table(uint32_t table)
{
    give(table, TABLE);
}

static void take_table_back(uint32_t table)
{
    take_back(table, UVMF_NONE);
}

/* Have a space checked and pinned. */
static void give_space(uint32_t root)
{
    for_each_table(root, give_table);
    give(root, ROOT);
    queue_operation(MMUEXT_PIN_L2_TABLE, machine_frame(root));
}

/* With another base, or a flush, nothing is known of the pages that become ours, but of the root, which is read here. */
void tables_retire(uint32_t root)
{
    if (kind_of(root) == PLAIN)
        return;
    if (loaded == root) {
        loaded = kernel_root;
        queue_operation(MMUEXT_NEW_BASEPTR, machine_frame(kernel_root));
    } else
        queue_operation(MMUEXT_TLB_FLUSH_LOCAL, 0);
    queue_operation(MMUEXT_UNPIN_TABLE, machine_frame(root));
    for_each_table(root, take_table_back);
    take_back(root, UVMF_INVLPG | UVMF_LOCAL);
    queue_commit();
}

void machine_load_root(uint32_t root)
{
    if (loaded == root)
        queue_operation(MMUEXT_TLB_FLUSH_LOCAL, 0);
    else {
        if (kind_of(root) == PLAIN)
            give_space(root);
        queue_operation(MMUEXT_NEW_BASEPTR, machine_frame(root));
        loaded = root;
    }
    queue_commit();
}

void machine_set_entry(uint32_t *entry, uint32_t value)
{
    const enum kind kind = kind_of((uint32_t)entry);

    if (value & ENTRY_P)
        value = to_machine(value);
    if (kind == PLAIN)
        *(volatile uint32_t *)entry = value;
    else {
        if (kind == ROOT && value & ENTRY_P)
            give_table(machine_entry(&value) & ENTRY_FRAME);
        queue_update(to_machine((uint32_t)entry), value);
    }
}

void machine_flush_page(uint32_t address)
{
    queue_forget(address);
}

/* The place of the entry for a page of the kernel. */
static uint32_t *kernel_place(uint32_t root, uint32_t page)
{
    const uint32_t table = machine_entry((uint32_t *)root + page / TABLE_SPAN) & ENTRY_FRAME;

    return (uint32_t *)table + page / PAGE_BYTES % ENTRIES;
}

void tables_start(void)
{
    queue_mapping((uint32_t)&shared_page, start->shared_info | KERNEL_PAGE | ENTRY_W, UVMF_INVLPG | UVMF_LOCAL);
    queue_commit();
}

/* The kernel's own space takes the place of the builder's. In the new one too, tables must be read-only: those of the new
   space, and those of the old, which is in use until the other is loaded. */
void machine_start_paging(uint32_t root)
{
    const uint32_t old = start->pt_base;

    for (unsigned index = 0; index < MEMORY_BYTES / TABLE_SPAN; index++) {
        const uint32_t table = machine_entry((uint32_t *)root + index) & ENTRY_FRAME;

        *kernel_place(root, table) &= ~ENTRY_W;
        give_table(table);
    }
    *kernel_place(root, root) &= ~ENTRY_W;
    for (unsigned page = 0; page < start->nr_pt_frames; page++)
        *kernel_place(root, old + page * PAGE_BYTES) &= ~ENTRY_W;
    *kernel_place(root, (uint32_t)&shared_page) = start->shared_info | KERNEL_PAGE | ENTRY_W;
    give(root, ROOT);
    queue_operation(MMUEXT_PIN_L2_TABLE, machine_frame(root));
    queue_operation(MMUEXT_NEW_BASEPTR, machine_frame(root));
    queue_operation(MMUEXT_UNPIN_TABLE, machine_frame(old));
    queue_commit();
    kernel_root = loaded = root;
}
