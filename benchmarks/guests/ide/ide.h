/* The first disk of the machine: one command at a time, by bus-master DMA. */
#ifndef IDE_H
#define IDE_H

#include <stdint.h>

#define IDE_LINE 14
#define IDE_MASTER_PORTS 0xC00  /* sixteen: where the bus master is put */
#define SECTOR_BYTES 512
#define IDE_MOST_SECTORS 256    /* of one command */
#define IDE_MOST_REGIONS 64

enum ide_command { IDE_READ, IDE_WRITE, IDE_FLUSH };

/* A piece of memory for the bus master: a machine address and bytes, both even; it lies within 64 KB. */
struct ide_region {
    uint32_t address, bytes;
};

/* Find the controller and its first disk. `machine_address` says where the bus master finds a page of this kernel.
   Returns the disk's sectors, 0 if there is none. */
uint32_t ide_start(uint32_t (*machine_address)(const void *page));

/* Begin a command; its end is an interrupt of IDE_LINE. */
void ide_begin(enum ide_command command, uint32_t sector, const struct ide_region *regions, unsigned count);

/* What an interrupt means: 0 the command goes on, 1 it has ended, -1 it has failed. */
int ide_interrupt(void);

#endif
