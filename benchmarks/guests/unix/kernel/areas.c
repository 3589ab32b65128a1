/* Demand paging: a page is filled, or copied, when it is touched first. */
#include "areas.h"

#include "../include/abi.h"
#include "../include/machine.h"
#include "bytes.h"
#include "frames.h"
#include "process.h"
#include "space.h"

struct area *area_at(struct process *process, uint32_t address)
{
    for (unsigned number = 0; number < AREAS_OF_PROCESS; number++) {
        struct area *area = &process->areas[number];

        if (area->start && address >= area->start && address < area->end)
            return area;
    }
    return 0;
}

struct area *area_add(struct process *process, uint32_t start, uint32_t end, uint32_t attributes)
{
    for (unsigned number = 0; number < AREAS_OF_PROCESS; number++) {
        struct area *area = &process->areas[number];

        if (!area->start) {
            memset(area, 0, sizeof *area);
            area->start = start;
            area->end = end;
            area->attributes = attributes;
            return area;
        }
    }
    return 0;
}

void areas_forget(struct process *process)
{
    memset(process->areas, 0, sizeof process->areas);
}

/* Copy what the area's file says of one page; the page is all zeros before. */
static void fill_from_file(const struct area *area, uint32_t page, uint32_t frame)
{
    uint32_t start = area->file_start, end = area->file_start + area->file_bytes;

    if (start < page)
        start = page;
    if (end > page + PAGE_BYTES)
        end = page + PAGE_BYTES;
    if (start < end)
        file_read(area->file, area->file_offset + (start - area->file_start), (void *)(frame + start - page),
                  end - start);
}

static void fill_page(struct process *process, const struct area *area, uint32_t page)
{
    const uint32_t frame = frame_allocate_clear();
    const uint32_t writable = area->attributes & AREA_WRITE ? ENTRY_W : 0;

    if (frame && area->file)
        fill_from_file(area, page, frame);
    if (!frame || !space_map(process->root, page, frame | ENTRY_P | ENTRY_U | writable)) {
        if (frame)
            frame_release(frame);
        process_exit(STATUS_OF_SIGNAL(SIGNAL_KILL));
    }
}

/* The first write to a page that fork left shared: the last user keeps the frame, the others get copies. */
static void copy_shared_page(struct process *process, uint32_t page, uint32_t entry)
{
    const uint32_t old = entry & ENTRY_FRAME;
    uint32_t frame = old;

    if (frame_is_shared(old)) {
        frame = frame_allocate();
        if (!frame)
            process_exit(STATUS_OF_SIGNAL(SIGNAL_KILL));
        copy_page((void *)frame, (void *)old);
        frame_release(old);
    }
    space_change(process->root, page, frame | ENTRY_P | ENTRY_W | ENTRY_U);
}

int area_fault(struct process *process, uint32_t address, uint32_t error)
{
    const struct area *area = area_at(process, address);
    const uint32_t page = address & ENTRY_FRAME;
    uint32_t entry;

    if (!area || ((error & FAULT_WRITE) && !(area->attributes & AREA_WRITE)))
        return 0;
    entry = space_entry(process->root, page);
    if (!(entry & ENTRY_P))
        fill_page(process, area, page);
    else if ((error & FAULT_WRITE) && (entry & ENTRY_COPY))
        copy_shared_page(process, page, entry);
    else
        return 0;
    space_commit();
    return 1;
}

static int can_touch(uint32_t address, uint32_t bytes, uint32_t attributes)
{
    const uint32_t end = address + bytes;

    if (end < address)
        return 0;
    while (address < end) {
        const struct area *area = area_at(current, address);

        if (!area || (area->attributes & attributes) != attributes)
            return 0;
        address = area->end;
    }
    return 1;
}

int can_read(uint32_t address, uint32_t bytes)
{
    return can_touch(address, bytes, 0);
}

int can_write(uint32_t address, uint32_t bytes)
{
    return can_touch(address, bytes, AREA_WRITE);
}

int can_read_text(uint32_t address)
{
    for (;; address++) {
        if (!can_read(address, 1))
            return 0;
        if (!*(const char *)address)
            return 1;
    }
}

/* The lowest place among the mappings with so much room. */
static uint32_t find_room(uint32_t bytes)
{
    uint32_t start = USER_MAPPINGS;

    for (unsigned number = 0; number < AREAS_OF_PROCESS;) {
        const struct area *area = &current->areas[number];

        if (area->start < start + bytes && start < area->end) {
            start = area->end;  /* begin again behind the one in the way */
            number = 0;
        } else
            number++;
    }
    return start;
}

int32_t call_map(uint32_t bytes)
{
    uint32_t start;

    if (bytes == 0 || bytes > MEMORY_BYTES)
        return ERROR_BAD_ARGUMENT;
    bytes = (bytes + PAGE_BYTES - 1) & ENTRY_FRAME;
    start = find_room(bytes);
    if (start + bytes > USER_STACK_TOP - STACK_BYTES || !area_add(current, start, start + bytes, AREA_WRITE | AREA_MAPPED))
        return ERROR_NO_MEMORY;
    return (int32_t)start;
}

int32_t call_unmap(uint32_t address)
{
    struct area *area = area_at(current, address);

    if (!area || area->start != address || !(area->attributes & AREA_MAPPED))
        return ERROR_BAD_ARGUMENT;
    for (uint32_t page = area->start; page < area->end; page += PAGE_BYTES) {
        const uint32_t entry = space_entry(current->root, page);

        if (entry & ENTRY_P) {
            space_change(current->root, page, 0);
            frame_release(entry & ENTRY_FRAME);
        }
    }
    space_commit();
    area->start = area->end = 0;
    return 0;
}
