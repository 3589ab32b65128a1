/* Address spaces. The only file that stores page-table entries, or reads them.

   The rules of the TLB: an entry that was not present needs nothing when it is filled; one that was present is followed by
   INVLPG, or, when many change at once, by a load of the root; tables of a space that is not in use need neither, because
   its next use begins with a load of the root. Where a hypervisor keeps the tables of spaces in use to itself, a space is
   retired before it is taken apart, and changes of one in use are committed by those who made them (space_commit). */
#include "space.h"

#include "../include/abi.h"
#include "../include/sizes.h"
#include "../include/machine.h"
#include "bytes.h"
#include "frames.h"

#define ENTRIES 1024
#define TABLE_SPAN (ENTRIES * PAGE_BYTES) /* what one page table maps: 4 MB */
#define KERNEL_TABLES (MEMORY_BYTES / TABLE_SPAN)
#define DIRECTORY_INDEX(address) ((address) / TABLE_SPAN)
#define TABLE_INDEX(address) ((address) / PAGE_BYTES % ENTRIES)
#define FIRST_OF_PROGRAM DIRECTORY_INDEX(USER_START)
#define END_OF_PROGRAM DIRECTORY_INDEX(USER_END)
#define KERNEL_PAGE (ENTRY_P | ENTRY_W | ENTRY_A | ENTRY_D) /* A and D from the start: hardware has nothing to add */
#define OPEN_TABLE (ENTRY_P | ENTRY_W | ENTRY_U) /* entries of a directory: the page's own entry decides */

#define IN_TABLES __attribute__((section(".bss.tables"), aligned(PAGE_BYTES)))

uint32_t kernel_directory[ENTRIES] IN_TABLES;
uint32_t kernel_tables[KERNEL_TABLES][ENTRIES] IN_TABLES;

static uint32_t *table_of(uint32_t directory_entry)
{
    return (uint32_t *)(directory_entry & ENTRY_FRAME);
}

void spaces_start(void)
{
    const uint32_t global = machine_has_global_pages() ? ENTRY_G : 0;
    uint32_t frame = 0;

    for (unsigned table = 0; table < KERNEL_TABLES; table++) {
        for (unsigned page = 0; page < ENTRIES; page++, frame += PAGE_BYTES)
            machine_set_entry(&kernel_tables[table][page], frame | global | KERNEL_PAGE);
        machine_set_entry(&kernel_directory[table], (uint32_t)kernel_tables[table] | KERNEL_PAGE);
    }
    machine_start_paging((uint32_t)kernel_directory);
}

uint32_t space_create(void)
{
    uint32_t *directory = (uint32_t *)frame_allocate_clear();

    if (directory)
        for (unsigned table = 0; table < KERNEL_TABLES; table++)
            machine_set_entry(&directory[table], (uint32_t)kernel_tables[table] | KERNEL_PAGE);
    return (uint32_t)directory;
}

static void release_pages(uint32_t *table)
{
    for (unsigned page = 0; page < ENTRIES; page++) {
        const uint32_t entry = machine_entry(&table[page]);

        if (entry & ENTRY_P)
            frame_release(entry & ENTRY_FRAME);
    }
}

void space_clear(uint32_t root)
{
    uint32_t *directory = (uint32_t *)root;

    machine_retire_root(root);
    for (unsigned index = FIRST_OF_PROGRAM; index < END_OF_PROGRAM; index++) {
        const uint32_t entry = machine_entry(&directory[index]);

        if (entry & ENTRY_P) {
            release_pages(table_of(entry));
            machine_set_entry(&directory[index], 0);
            frame_release(entry & ENTRY_FRAME);
        }
    }
}

void space_destroy(uint32_t root)
{
    space_clear(root);
    frame_release(root);
}

/* The place of the entry for an address, in a table that is made if there is none; null if memory ran out. */
static uint32_t *place_of_entry(uint32_t root, uint32_t address)
{
    uint32_t *place = (uint32_t *)root + DIRECTORY_INDEX(address);
    uint32_t entry = machine_entry(place);

    if (!(entry & ENTRY_P)) {
        entry = frame_allocate_clear();
        if (!entry)
            return 0;
        machine_set_entry(place, entry | OPEN_TABLE);
    }
    return table_of(entry) + TABLE_INDEX(address);
}

uint32_t space_entry(uint32_t root, uint32_t address)
{
    const uint32_t entry = machine_entry((uint32_t *)root + DIRECTORY_INDEX(address));

    return entry & ENTRY_P ? machine_entry(table_of(entry) + TABLE_INDEX(address)) : 0;
}

int space_map(uint32_t root, uint32_t address, uint32_t entry)
{
    uint32_t *place = place_of_entry(root, address);

    if (place)
        machine_set_entry(place, entry);
    return place != 0;
}

void space_change(uint32_t root, uint32_t address, uint32_t entry)
{
    machine_set_entry(place_of_entry(root, address), entry);
    machine_flush_page(address);
}

void space_commit(void)
{
    machine_commit();
}

void space_leave(void)
{
    machine_load_root((uint32_t)kernel_directory);
}

/* Give the new space what one entry of the old maps; 0 if memory ran out. Pages that nobody may write stay shared. */
static int fork_page(uint32_t *place, uint32_t to, uint32_t address, enum fork_way way)
{
    uint32_t entry = machine_entry(place);
    const uint32_t old = entry & ENTRY_FRAME;
    uint32_t frame = old;

    if (entry & (ENTRY_W | ENTRY_COPY)) {
        if (way == FORK_COPYING) {
            frame = frame_allocate();
            if (!frame)
                return 0;
            copy_page((void *)frame, (void *)old);
            entry = frame | ENTRY_P | ENTRY_W | ENTRY_U;
        } else if (entry & ENTRY_W) {
            entry = (entry & ~ENTRY_W) | ENTRY_COPY;
            machine_set_entry(place, entry);
        }
    }
    if (!space_map(to, address, entry & ~(ENTRY_A | ENTRY_D))) {
        if (frame != old)
            frame_release(frame);
        return 0;
    }
    if (frame == old)
        frame_share(frame);
    return 1;
}

static int fork_table(uint32_t *table, uint32_t to, uint32_t address, enum fork_way way)
{
    for (unsigned page = 0; page < ENTRIES; page++, address += PAGE_BYTES)
        if (table[page] & ENTRY_P && !fork_page(&table[page], to, address, way)) /* the bit is the same for everybody */
            return 0;
    return 1;
}

int space_fork(uint32_t from, uint32_t to, enum fork_way way)
{
    uint32_t *directory = (uint32_t *)from;
    int done = 1;

    for (unsigned index = FIRST_OF_PROGRAM; index < END_OF_PROGRAM && done; index++) {
        const uint32_t entry = machine_entry(&directory[index]);

        if (entry & ENTRY_P)
            done = fork_table(table_of(entry), to, index * TABLE_SPAN, way);
    }
    if (way == FORK_SHARING)
        machine_load_root(from); /* the parent's own pages have become read-only */
    return done;
}
