/* The disk, as the benchmark uses it: by the IDE controller in one build, by a block ring in the other. */
#ifndef DISK_H
#define DISK_H

#include <stdint.h>

#define PAGE_BYTES 4096
#define PAGE_SECTORS 8
#define MOST_REQUESTS 32        /* put and not finished */
#define MOST_PAGES 11           /* of one request */

enum disk_operation { DISK_READ, DISK_WRITE };

/* Sectors of the disk; 0 if there is none. */
uint32_t disk_start(void);

/* Put a request: pages side by side. Begin all that were put. */
void disk_put(enum disk_operation operation, uint32_t sector, void *pages, unsigned count);
void disk_push(void);

/* Requests that are not finished, changed by the disk's interrupt or event; and those so far that failed. */
extern volatile unsigned disk_unfinished;
extern volatile unsigned disk_failures;

/* Rest until an interrupt or event has been taken. */
void kernel_rest(void);

#endif
