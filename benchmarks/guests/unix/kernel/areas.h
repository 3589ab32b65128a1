/* What a program may touch, and what a page shows when it is touched first. */
#ifndef AREAS_H
#define AREAS_H

#include "../include/sizes.h"
#include "files.h"

struct process;

#define AREA_WRITE 1            /* may be written */
#define AREA_MAPPED 2           /* made by CALL_MAP: may be taken away */
#define AREA_OF_KERNEL 4        /* its one page is the kernel's, and is there from the start */

struct area {
    uint32_t start, end;        /* whole pages; start is 0 in a place that is free */
    uint32_t attributes;
    struct file *file;          /* where the contents come from, or none: zeros */
    uint32_t file_start;        /* the linear address that the first byte from the file belongs to */
    uint32_t file_offset, file_bytes;
    uint8_t reserve[AREA_BYTES - 7 * 4];
};

_Static_assert(sizeof(struct area) == AREA_BYTES, "size of an area");

struct area *area_at(struct process *process, uint32_t address);
struct area *area_add(struct process *process, uint32_t start, uint32_t end, uint32_t attributes); /* or null */
void areas_forget(struct process *process);

/* Make an access possible that faulted; 0 if it is not allowed. Memory may run out: then the process is ended. */
int area_fault(struct process *process, uint32_t address, uint32_t error);

/* Whether the running process may read, or write, all bytes there: the kernel may then touch them itself. */
int can_read(uint32_t address, uint32_t bytes);
int can_write(uint32_t address, uint32_t bytes);
int can_read_text(uint32_t address);

int32_t call_map(uint32_t bytes);
int32_t call_unmap(uint32_t address);

#endif
