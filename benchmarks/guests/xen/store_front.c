/* The store, as a client: one request at a time, each waited for. */
#include "front_own.h"
#include "hypercall.h"
#include "text.h"

static struct xenstore_domain_interface *ring(void)
{
    return front_page(front_information->store_mfn);
}

static void notify(void)
{
    struct evtchn_send send = {front_information->store_evtchn};

    event_channel_op(EVTCHNOP_send, &send);
}

static void send_bytes(const void *content, uint32_t bytes)
{
    struct xenstore_domain_interface *wire = ring();
    const char *next = content;

    while (bytes) {
        if (wire->req_prod - *(volatile uint32_t *)&wire->req_cons == XENSTORE_RING_SIZE) {
            notify();
            front_yield();
            continue;
        }
        wire->req[wire->req_prod % XENSTORE_RING_SIZE] = *next++;
        compiler_barrier();
        wire->req_prod++;
        bytes--;
    }
}

static void receive_bytes(char *content, uint32_t bytes, uint32_t room)
{
    struct xenstore_domain_interface *wire = ring();

    for (uint32_t taken = 0; taken < bytes;) {
        if (*(volatile uint32_t *)&wire->rsp_prod == wire->rsp_cons) {
            notify();
            front_yield();
            continue;
        }
        compiler_barrier();
        if (taken < room)
            content[taken] = wire->rsp[wire->rsp_cons % XENSTORE_RING_SIZE];
        wire->rsp_cons++;
        taken++;
    }
}

int32_t store_ask(uint32_t type, const void *content, uint32_t bytes, char *answer, uint32_t room)
{
    struct xsd_sockmsg header = {.type = type, .len = bytes};

    send_bytes(&header, sizeof header);
    send_bytes(content, bytes);
    receive_bytes((char *)&header, sizeof header, sizeof header);
    receive_bytes(answer, header.len, room);
    return header.type == XS_ERROR ? -1 : (int32_t)header.len;
}

int store_read(const char *path, char *value, uint32_t room)
{
    const int32_t bytes = store_ask(XS_READ, path, text_bytes(path) + 1, value, room - 1);

    if (bytes < 0 || (uint32_t)bytes >= room)
        return 0;
    value[bytes] = 0;
    return 1;
}

int store_write(const char *path, const char *value)
{
    char content[512], answer[16];
    const size_t name = text_bytes(path) + 1;

    memcpy(content, path, name);
    memcpy(content + name, value, text_bytes(value));
    return store_ask(XS_WRITE, content, name + text_bytes(value), answer, sizeof answer) >= 0;
}
