/* The guest's disk: requests of its block ring become commands of the machine's IDE disk, one after the other. The bus master
   reads and writes the frames that the guest has granted; this kernel never sees the data. */
#include "block_back.h"

#include "../ide/ide.h"
#include "../xen/events.h"
#include "../xen/grants.h"
#include "../xen/hypercall.h"
#include "../xen/text.h"
#include "block_bus.h"
#include "domain.h"
#include "lines.h"

#define SECTORS_OF_PAGE 8

static union { struct blkif_sring ring; uint8_t page[4096]; } shared ALONE_IN_PAGES;
static uint32_t ring_handle = NO_GRANT;
static int32_t port = -1;
static uint32_t requests_taken, responses_given;
static uint32_t connections;    /* so far: what was asked before the last one is not answered */
static uint32_t disk_sectors;
static struct line disk_line;

/* The request that the disk works on. */
static struct {
    int under_way;
    uint32_t connection;
    struct blkif_request request;
    struct held_frame frames[BLKIF_MAX_SEGMENTS_PER_REQUEST];
    unsigned held;
} now;

void block_back_start(void)
{
    disk_sectors = ide_start(machine_address);
    if (!disk_sectors)
        return;
    disk_line = line_open(IDE_LINE);
    block_bus_start(disk_sectors);
}

int block_back_connect(uint32_t reference, uint32_t remote_port)
{
    ring_handle = grant_map_page(guest.domain, reference, &shared);
    if (ring_handle == NO_GRANT)
        return 0;
    port = event_bind(guest.domain, remote_port);
    requests_taken = shared.ring.header.rsp_prod;
    responses_given = requests_taken;
    connections++;
    if (port < 0)
        block_back_disconnect();
    return port >= 0;
}

void block_back_disconnect(void)
{
    if (port >= 0)
        event_close((uint32_t)port);
    if (ring_handle != NO_GRANT)
        grant_unmap_page(ring_handle, &shared);
    port = -1;
    ring_handle = NO_GRANT;
}

/* -- responses -- */

/* Put a response into the ring. The front end hears of it if it asked for one so early. */
static void respond(int16_t status)
{
    struct ring_header *header = &shared.ring.header;
    const uint32_t before = responses_given;

    if (ring_handle == NO_GRANT || now.connection != connections)
        return;                 /* the front end went while the disk worked */
    shared.ring.ring[before % BLKIF_RING_ENTRIES].response = (struct blkif_response){
        .id = now.request.id, .operation = now.request.operation, .status = status,
    };
    compiler_barrier();
    header->rsp_prod = ++responses_given;
    compiler_barrier();
    if (responses_given - *(volatile uint32_t *)&header->rsp_event < responses_given - before)
        event_send((uint32_t)port);
}

/* -- requests -- */

/* Sectors of a segment; 0 if it is none. */
static uint32_t sectors_of(const struct blkif_request_segment *segment)
{
    if (segment->last_sect >= SECTORS_OF_PAGE || segment->first_sect > segment->last_sect)
        return 0;
    return segment->last_sect - segment->first_sect + 1u;
}

/* Sectors of a request; 0 if a segment is none, or they reach beyond the disk. */
static uint32_t sectors_in(const struct blkif_request *request)
{
    uint32_t sectors = 0;

    if (!request->nr_segments || request->nr_segments > BLKIF_MAX_SEGMENTS_PER_REQUEST)
        return 0;
    for (unsigned number = 0; number < request->nr_segments; number++) {
        const uint32_t own = sectors_of(&request->seg[number]);

        if (!own)
            return 0;
        sectors += own;
    }
    if (request->sector_number >= disk_sectors || sectors > disk_sectors - (uint32_t)request->sector_number)
        return 0;
    return sectors;
}

/* Hold the frames of a request, and begin its command. 0 if it cannot be done. */
static int move_sectors(const struct blkif_request *request)
{
    uint32_t references[BLKIF_MAX_SEGMENTS_PER_REQUEST];
    struct ide_region regions[BLKIF_MAX_SEGMENTS_PER_REQUEST];
    const int is_write = request->operation == BLKIF_OP_WRITE;

    if (!sectors_in(request))
        return 0;
    for (unsigned number = 0; number < request->nr_segments; number++)
        references[number] = request->seg[number].gref;
    if (grants_hold(guest.domain, references, request->nr_segments, is_write, now.frames))
        return 0;
    now.held = request->nr_segments;
    for (unsigned number = 0; number < now.held; number++)
        regions[number] = (struct ide_region){
            now.frames[number].address + request->seg[number].first_sect * SECTOR_BYTES,
            sectors_of(&request->seg[number]) * SECTOR_BYTES,
        };
    ide_begin(is_write ? IDE_WRITE : IDE_READ, (uint32_t)request->sector_number, regions, now.held);
    return 1;
}

/* Begin what a request asks for, or answer why not. */
static void begin(void)
{
    now.held = 0;
    now.connection = connections;
    switch (now.request.operation) {
    case BLKIF_OP_READ:
    case BLKIF_OP_WRITE:
        now.under_way = move_sectors(&now.request);
        if (!now.under_way)
            respond(BLKIF_RSP_ERROR);
        break;
    case BLKIF_OP_FLUSH_DISKCACHE:
        ide_begin(IDE_FLUSH, 0, 0, 0);
        now.under_way = 1;
        break;
    default:
        respond(BLKIF_RSP_EOPNOTSUPP);
    }
}

/* Take the next request as it stands now: the guest may write to the ring at any time. 0: there is none. */
static int take_request(void)
{
    struct ring_header *header = &shared.ring.header;
    const uint32_t there = *(volatile uint32_t *)&header->req_prod;

    if (there - responses_given > BLKIF_RING_ENTRIES) {
        block_bus_fail("more requests than a ring has");
        return 0;
    }
    if (there == requests_taken)
        return 0;
    compiler_barrier();
    now.request = shared.ring.ring[requests_taken++ % BLKIF_RING_ENTRIES].request;
    compiler_barrier();
    return 1;
}

/* Whether a request waits; if not, the front end is asked to tell of the next one. */
static int find_request(void)
{
    if (take_request())
        return 1;
    if (ring_handle == NO_GRANT)
        return 0;
    shared.ring.header.req_event = requests_taken + 1;
    __asm__ volatile("lock addl $0, (%%esp)" : : : "memory");   /* it must see that before we look once more */
    return take_request();
}

static void finish(void)
{
    const int outcome = ide_interrupt();

    if (!outcome)
        return;
    grants_release(now.frames, now.held);
    now.under_way = 0;
    respond(outcome > 0 ? BLKIF_RSP_OKAY : BLKIF_RSP_ERROR);
}

void block_back_serve(void)
{
    if (line_taken(&disk_line)) {
        if (now.under_way)
            finish();
        line_end(&disk_line);
    }
    block_bus_look();
    if (port >= 0)
        event_taken((uint32_t)port);
    while (!now.under_way && ring_handle != NO_GRANT && find_request())
        begin();
}
