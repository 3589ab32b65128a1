/* Front ends, for a kernel whose linear addresses are pseudo-physical ones. The kernel takes the events of their channels. */
#ifndef XEN_FRONT_H
#define XEN_FRONT_H

#include "interface.h"

/* Before everything else here. */
void front_start(const struct start_info *start);

/* Let other domains run. */
void front_yield(void);

/* The page of ours that is in a machine frame, and the frame of a page. */
void *front_page(uint32_t machine_frame);
uint32_t front_frame(const void *page);

/* Let domain 0 use a page; the reference. Take it back, when domain 0 has let go of it. */
uint32_t front_grant(const void *page, int read_only);
void front_take_back(uint32_t reference);

/* A request to the store, which is answered at once or not at all: bytes of the answer, -1 for an error of the store's. */
int32_t store_ask(uint32_t type, const void *content, uint32_t bytes, char *answer, uint32_t room);

/* The value at a path as a text that ends with a zero; 0 if there is none. */
int store_read(const char *path, char *value, uint32_t room);
int store_write(const char *path, const char *value);

/* -- the first disk -- */

/* Connect to the back end: the disk's sectors, 0 if there is none. Its channel is still masked. */
uint32_t block_start(void);
uint32_t block_port(void);

/* Put a request into the ring: pages side by side. The caller sees to it that there are no more than BLKIF_RING_ENTRIES. */
void block_put(uint8_t operation, uint32_t sector, void *pages, unsigned count);

/* Show the back end what was put; it is told if it wants to be. */
void block_push(void);

/* Take the responses that are there: how many, and how many of them say that something went wrong. */
unsigned block_take(unsigned *failed);

#endif
