/* The disk by the IDE controller, which takes one command at a time: the others wait in a queue. */
#include "../disk.h"

#include "../../ide/ide.h"
#include "../../ide/ports.h"

#define PIC1_COMMAND 0x20
#define PIC1_DATA 0x21
#define PIC2_COMMAND 0xA0
#define PIC2_DATA 0xA1
#define END_OF_INTERRUPT 0x20
#define ONLY_CASCADE 0xFB       /* of the first controller's lines */
#define ONLY_DISK 0xBF          /* of the second's */
#define VECTOR_OF_DISK (0x20 + IDE_LINE)

extern void (*trap_handlers[])(void);

volatile unsigned disk_unfinished, disk_failures;

static struct {
    enum disk_operation operation;
    uint32_t sector;
    unsigned count;
    struct ide_region regions[MOST_PAGES];
} queue[MOST_REQUESTS];
static unsigned first, next;

static uint32_t own_address(const void *page)
{
    return (uint32_t)page;
}

static void begin_first(void)
{
    ide_begin(queue[first % MOST_REQUESTS].operation == DISK_WRITE ? IDE_WRITE : IDE_READ, queue[first % MOST_REQUESTS].sector,
              queue[first % MOST_REQUESTS].regions, queue[first % MOST_REQUESTS].count);
}

static void disk_interrupt(void)
{
    const int outcome = ide_interrupt();

    out8(PIC2_COMMAND, END_OF_INTERRUPT);
    out8(PIC1_COMMAND, END_OF_INTERRUPT);
    if (!outcome || !disk_unfinished)
        return;
    disk_failures += outcome < 0;
    disk_unfinished--;
    first++;
    if (disk_unfinished)
        begin_first();
}

uint32_t disk_start(void)
{
    const uint32_t sectors = ide_start(own_address);

    trap_handlers[VECTOR_OF_DISK] = disk_interrupt;
    out8(PIC1_DATA, ONLY_CASCADE);
    out8(PIC2_DATA, ONLY_DISK);
    return sectors;
}

void disk_put(enum disk_operation operation, uint32_t sector, void *pages, unsigned count)
{
    const unsigned place = next++ % MOST_REQUESTS;

    queue[place].operation = operation;
    queue[place].sector = sector;
    queue[place].count = count;
    for (unsigned page = 0; page < count; page++)
        queue[place].regions[page] = (struct ide_region){(uint32_t)pages + page * PAGE_BYTES, PAGE_BYTES};
}

void disk_push(void)
{
    const int idle = !disk_unfinished;

    disk_unfinished = next - first;
    if (idle && disk_unfinished)
        begin_first();
}
