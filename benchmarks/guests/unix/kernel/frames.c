/* Page frames. The free ones form a list that is written into the frames themselves, so that it needs no room. */
#include "frames.h"

#include "../include/sizes.h"
#include "bytes.h"
#include "console.h"

static uint8_t users[MEMORY_BYTES / PAGE_BYTES]; /* how many address spaces map a frame; 64 processes fit */
static uint32_t first_free;                      /* 0 ends the list: frame 0 is never given away */
static uint32_t free_frames;

void frames_add(uint32_t start, uint32_t end)
{
    while (end > start) {       /* from the top, so that the lowest is given away first */
        end -= PAGE_BYTES;
        users[end / PAGE_BYTES] = 1;
        frame_release(end);
    }
}

uint32_t frame_allocate(void)
{
    const uint32_t frame = first_free;

    if (frame) {
        first_free = *(uint32_t *)frame;
        users[frame / PAGE_BYTES] = 1;
        free_frames--;
    }
    return frame;
}

uint32_t frame_allocate_clear(void)
{
    const uint32_t frame = frame_allocate();

    if (frame)
        clear_page((void *)frame);
    return frame;
}

void frame_share(uint32_t frame)
{
    users[frame / PAGE_BYTES]++;
}

void frame_release(uint32_t frame)
{
    if (users[frame / PAGE_BYTES] == 0)
        panic("a free page was released", EXIT_PANIC);
    if (--users[frame / PAGE_BYTES] == 0) {
        *(uint32_t *)frame = first_free;
        first_free = frame;
        free_frames++;
    }
}

int frame_is_shared(uint32_t frame)
{
    return users[frame / PAGE_BYTES] > 1;
}

uint32_t frames_free(void)
{
    return free_frames;
}
