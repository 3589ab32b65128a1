/* The store's nodes of the block device, front and back. */
#include "block_bus.h"

#include "../ide/ide.h"
#include "../xen/interface.h"
#include "../xen/text.h"
#include "domain.h"
#include "store.h"

#define VIRTUAL_DEVICE 768      /* hda */
#define NONE 0xFFFFFFFFu

static char front[PATH_BYTES], back[PATH_BYTES];
static uint32_t sectors_offered, seen_changes, state;

static void set_state(uint32_t next)
{
    state = next;
    store_put_number(back, "state", next);
}

static void append(char path[PATH_BYTES], const char *text)
{
    memcpy(path + text_bytes(path), text, text_bytes(text) + 1);
}

static void append_number(char path[PATH_BYTES], uint32_t value)
{
    char place[DECIMAL_BYTES];

    append(path, decimal(value, place));
}

static void make_paths(void)
{
    store_home(guest.domain, front);
    append(front, "/device/vbd/");
    append_number(front, VIRTUAL_DEVICE);
    store_home(0, back);
    append(back, "/backend/vbd/");
    append_number(back, guest.domain);
    append(back, "/");
    append_number(back, VIRTUAL_DEVICE);
}

void block_bus_start(uint32_t sectors)
{
    sectors_offered = sectors;
    make_paths();
    store_own(back, 0, guest.domain);
    store_put(back, "frontend", front);
    store_put_number(back, "frontend-id", guest.domain);
    store_put_number(back, "online", 1);
    store_put(back, "dev", "hda");
    store_put(back, "mode", "w");
    store_put_number(back, "feature-flush-cache", 1);
    set_state(XenbusStateInitWait);
    store_own(front, guest.domain, 0);
    store_put(front, "backend", back);
    store_put_number(front, "backend-id", 0);
    store_put_number(front, "virtual-device", VIRTUAL_DEVICE);
    store_put(front, "device-type", "disk");
    store_put_number(front, "state", XenbusStateInitialising);
    seen_changes = store_changes;
}

static void connect(void)
{
    const uint32_t reference = store_number(front, "ring-ref", NONE), port = store_number(front, "event-channel", NONE);

    if (reference == NONE || port == NONE || !block_back_connect(reference, port)) {
        block_bus_fail("no ring, or no event channel");
        return;
    }
    store_put_number(back, "sectors", sectors_offered);
    store_put_number(back, "sector-size", SECTOR_BYTES);
    store_put_number(back, "info", 0);
    set_state(XenbusStateConnected);
}

void block_bus_fail(const char *why)
{
    block_back_disconnect();
    store_put(back, "error", why);
    set_state(XenbusStateClosed);
}

void block_bus_look(void)
{
    uint32_t theirs;

    if (!sectors_offered || store_changes == seen_changes)
        return;
    theirs = store_number(front, "state", XenbusStateUnknown);
    if ((theirs == XenbusStateInitialised || theirs == XenbusStateConnected) && state == XenbusStateInitWait) {
        connect();
    } else if ((theirs == XenbusStateClosing || theirs == XenbusStateClosed) && state != XenbusStateClosed) {
        block_back_disconnect();
        set_state(XenbusStateClosed);
    } else if (theirs == XenbusStateInitialising && state == XenbusStateClosed) {
        set_state(XenbusStateInitWait);
    }
    seen_changes = store_changes;
}
