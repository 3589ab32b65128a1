/* The front end of a disk. Each request grants its pages anew, and takes the grants back with the response. */
#include "front_own.h"
#include "hypercall.h"
#include "text.h"

#define PATH_BYTES 128
#define FOLDER "device/vbd"
#define LAST_SECTOR_OF_PAGE 7
#define DISK 768                /* what a request calls it: hda */

static union { struct blkif_sring ring; uint8_t page[4096]; } shared __attribute__((aligned(4096)));
static uint32_t port, requests_put, responses_taken;
static char front[PATH_BYTES], back[PATH_BYTES];

/* What is under way, by the number that its request bears. */
static struct {
    int busy;
    unsigned count;             /* of grants */
    uint32_t references[BLKIF_MAX_SEGMENTS_PER_REQUEST];
} under_way[BLKIF_RING_ENTRIES];

/* -- connecting, through the store -- */

static const char *below(const char *folder, const char *name)
{
    static char path[2 * PATH_BYTES];
    const size_t bytes = text_bytes(folder);

    memcpy(path, folder, bytes);
    path[bytes] = '/';
    memcpy(path + bytes + 1, name, text_bytes(name) + 1);
    return path;
}

static void write_number(const char *name, uint32_t value)
{
    char place[DECIMAL_BYTES];

    store_write(below(front, name), decimal(value, place));
}

static uint32_t number_of_back_end(const char *name)
{
    char value[16];
    uint32_t number;

    if (!store_read(below(back, name), value, sizeof value) || !read_decimal(value, text_bytes(value), &number))
        return 0;
    return number;
}

/* The first device, and its back end's part of the store. 0: there is none. */
static int find_device(void)
{
    char names[PATH_BYTES];

    if (store_ask(XS_DIRECTORY, FOLDER, sizeof FOLDER, names, sizeof names) <= 0)
        return 0;
    memcpy(front, below(FOLDER, names), text_bytes(FOLDER) + 1 + text_bytes(names) + 1);
    return store_read(below(front, "backend"), back, sizeof back);
}

static void wait_for_state(uint32_t wanted)
{
    uint32_t state;

    while ((state = number_of_back_end("state")) != wanted && state < XenbusStateClosing)
        front_yield();
}

static uint32_t allocate_port(void)
{
    struct evtchn_alloc_unbound allocate = {.dom = DOMID_SELF, .remote_dom = 0};

    event_channel_op(EVTCHNOP_alloc_unbound, &allocate);
    return allocate.port;
}

uint32_t block_start(void)
{
    if (!front_information->store_evtchn || !find_device())
        return 0;
    wait_for_state(XenbusStateInitWait);
    port = allocate_port();
    shared.ring.header.req_event = 1;
    shared.ring.header.rsp_event = 1;
    write_number("ring-ref", front_grant(&shared, 0));
    write_number("event-channel", port);
    store_write(below(front, "protocol"), "x86_32-abi");
    write_number("state", XenbusStateInitialised);
    wait_for_state(XenbusStateConnected);
    write_number("state", XenbusStateConnected);
    return number_of_back_end("sectors");
}

uint32_t block_port(void)
{
    return port;
}

/* -- requests -- */

static unsigned free_number(void)
{
    unsigned number = 0;

    while (under_way[number].busy)
        number++;
    return number;
}

void block_put(uint8_t operation, uint32_t sector, void *pages, unsigned count)
{
    struct blkif_request *request = &shared.ring.ring[requests_put++ % BLKIF_RING_ENTRIES].request;
    const unsigned number = free_number();

    request->operation = operation;
    request->nr_segments = (uint8_t)count;
    request->handle = DISK;
    request->id = number;
    request->sector_number = sector;
    for (unsigned page = 0; page < count; page++) {
        const uint32_t reference = front_grant((uint8_t *)pages + page * 4096, operation == BLKIF_OP_WRITE);

        under_way[number].references[page] = reference;
        request->seg[page] = (struct blkif_request_segment){.gref = reference, .last_sect = LAST_SECTOR_OF_PAGE};
    }
    under_way[number].count = count;
    under_way[number].busy = 1;
}

void block_push(void)
{
    struct ring_header *header = &shared.ring.header;
    const uint32_t before = header->req_prod;
    struct evtchn_send send = {port};

    compiler_barrier();
    header->req_prod = requests_put;
    __asm__ volatile("lock addl $0, (%%esp)" : : : "memory");   /* it must be seen before we look at what is wanted */
    if (requests_put - *(volatile uint32_t *)&header->req_event < requests_put - before)
        event_channel_op(EVTCHNOP_send, &send);
}

static int finish(const struct blkif_response *response)
{
    const unsigned number = (unsigned)response->id % BLKIF_RING_ENTRIES;

    for (unsigned page = 0; page < under_way[number].count; page++)
        front_take_back(under_way[number].references[page]);
    under_way[number].busy = 0;
    return response->status == BLKIF_RSP_OKAY;
}

unsigned block_take(unsigned *failed)
{
    struct ring_header *header = &shared.ring.header;
    const uint32_t began = responses_taken;

    do {
        while (responses_taken != *(volatile uint32_t *)&header->rsp_prod) {
            compiler_barrier();
            *failed += !finish(&shared.ring.ring[responses_taken++ % BLKIF_RING_ENTRIES].response);
        }
        header->rsp_event = responses_taken + 1;
        __asm__ volatile("lock addl $0, (%%esp)" : : : "memory");   /* then look once more */
    } while (responses_taken != *(volatile uint32_t *)&header->rsp_prod);
    return responses_taken - began;
}
