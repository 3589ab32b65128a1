/* Page frames: who uses each, and which are free. */
#ifndef FRAMES_H
#define FRAMES_H

#include <stdint.h>

/* Give the frames of [start, end) to the allocator. Physical and linear addresses of the kernel are the same. */
void frames_add(uint32_t start, uint32_t end);

uint32_t frame_allocate(void);        /* its address, contents unknown, one user; 0 if there is none */
uint32_t frame_allocate_clear(void);  /* the same, all zeros */
void frame_share(uint32_t frame);     /* one more user */
void frame_release(uint32_t frame);   /* one user less; free if it was the last */
int frame_is_shared(uint32_t frame);
uint32_t frames_free(void);

#endif
