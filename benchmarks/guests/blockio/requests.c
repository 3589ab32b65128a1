/* The measured requests, and the proof that they moved what they should. */
#include "../unix/kernel/bytes.h"
#include "disk.h"

#define PAGES 32                /* on the disk and in memory */
#define BATCH MOST_REQUESTS
#define WORDS (PAGE_BYTES / 4)

/* A measured region, as the library's macros have it. */
#define REGION_BEGIN(number) __asm__ volatile("movl %0, %%edx\n\txchgw %%bx, %%bx" : : "i"(number) : "edx", "memory")
#define REGION_END(iterations) __asm__ volatile("xchgw %%cx, %%cx" : : "a"(iterations) : "memory")
#define MEASURE(number, iterations, ...) \
    do { \
        uint32_t turn = 0; \
        REGION_BEGIN(number); \
        do { \
            __VA_ARGS__; \
        } while (++turn < iterations); \
        REGION_END(iterations); \
    } while (0)

const char *measure_requests(uint32_t iterations);

static uint32_t pages[PAGES][WORDS] __attribute__((aligned(PAGE_BYTES)));

static void wait_for_all(void)
{
    while (disk_unfinished)
        kernel_rest();
}

static void move(enum disk_operation operation, uint32_t page, unsigned count)
{
    disk_put(operation, page * PAGE_SECTORS, pages[page], count);
    disk_push();
    wait_for_all();
}

/* All pages of the disk, one request each, asked for at once. */
static void move_batch(enum disk_operation operation)
{
    for (uint32_t page = 0; page < BATCH; page++)
        disk_put(operation, page * PAGE_SECTORS, pages[page], 1);
    disk_push();
    wait_for_all();
}

static uint32_t word_of(uint32_t page, uint32_t word)
{
    return (page * WORDS + word) * 0x9E3779B1u;
}

static void fill(void)
{
    for (uint32_t page = 0; page < PAGES; page++)
        for (uint32_t word = 0; word < WORDS; word++)
            pages[page][word] = word_of(page, word);
}

/* Whether pages hold what was written; they are cleared for the next that reads them. */
static int are_right(uint32_t count)
{
    int right = 1;

    for (uint32_t page = 0; page < count; page++)
        for (uint32_t word = 0; word < WORDS; word++) {
            right &= pages[page][word] == word_of(page, word);
            pages[page][word] = 0;
        }
    return right;
}

static uint32_t smaller(uint32_t one, uint32_t two)
{
    return one < two ? one : two;
}

/* What is wrong, or 0. */
const char *measure_requests(uint32_t iterations)
{
    if (disk_start() < PAGES * PAGE_SECTORS)
        return "no disk of 128 KB or more";
    fill();
    move_batch(DISK_WRITE);     /* also so that what follows is not the first of its kind */
    MEASURE(0, iterations, move(DISK_WRITE, turn % PAGES, 1));
    are_right(PAGES);           /* clears them */
    MEASURE(1, iterations, move(DISK_READ, turn % PAGES, 1));
    if (!are_right(smaller(iterations, PAGES)))
        return "a page was read that is not what was written";
    MEASURE(2, iterations, move_batch(DISK_READ));
    if (!are_right(PAGES))
        return "a page of a batch was read that is not what was written";
    MEASURE(3, iterations, move(DISK_READ, 0, MOST_PAGES));
    if (!are_right(MOST_PAGES))
        return "a page of a long request was read that is not what was written";
    return disk_failures ? "a request failed" : 0;
}
