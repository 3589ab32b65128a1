/* Hypercalls that wait for each other, to be made in one trap. Changes of page tables may wait until somebody could notice:
   until the hypervisor is to forget translations, or a program is to run. */
#ifndef QUEUE_H
#define QUEUE_H

#include <stdint.h>

/* Store an entry, given by its machine address, of a table that the hypervisor has to itself. */
void queue_update(uint32_t address, uint32_t value);

/* One of MMUEXT_..., with its first argument. */
void queue_operation(uint32_t command, uint32_t argument);

/* Another entry for a page of the space in use (UVMF_...). */
void queue_mapping(uint32_t page, uint32_t value, uint32_t flush);

/* What was changed last was the entry of this page, whose translation is to be forgotten. */
void queue_forget(uint32_t page);

/* The stack of ring 1. */
void queue_stack(uint32_t selector, uint32_t top);

/* Make them, in the order in which they came. */
void queue_commit(void);

#endif
