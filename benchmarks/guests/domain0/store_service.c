/* The guest's store ring: requests of the wire protocol (io/xs_wire.h) in, replies and watch events out.

   A request is dealt with as soon as it is whole and the reply before it has left. A transaction works on a copy of the tree,
   which takes the tree's place at its end, unless the tree has changed meanwhile. */
#include "store_service.h"

#include "../xen/events.h"
#include "../xen/grants.h"
#include "../xen/hypercall.h"
#include "../xen/text.h"
#include "domain.h"
#include "store.h"
#include "watches.h"

#define TRANSACTIONS 4
#define MESSAGE_BYTES (sizeof(struct xsd_sockmsg) + XENSTORE_PAYLOAD_MAX)

static union { struct xenstore_domain_interface ring; uint8_t page[4096]; } wire ALONE_IN_PAGES;
static int32_t port = -1;

union message {
    struct { struct xsd_sockmsg header; char text[XENSTORE_PAYLOAD_MAX + 1]; };
    uint8_t octets[MESSAGE_BYTES + 1];
};
static union message request, reply;
static uint32_t request_bytes, reply_bytes, reply_sent;
static int deaf;                /* the guest has said what no guest says: nothing that follows can be understood */

static struct transaction {
    uint32_t number;            /* 0: not in use */
    uint32_t store_changes;     /* when it began */
    int changed;
    struct tree tree;
} transactions[TRANSACTIONS];
static uint32_t last_transaction;

/* What a guest finds of itself, whatever its devices. */
static void make_home(void)
{
    char home[PATH_BYTES], place[PATH_BYTES];

    store_home(guest.domain, home);
    store_own(home, 0, guest.domain);
    store_put(home, "name", guest.name);
    store_put_number(home, "domid", guest.domain);
    store_put_number(home, "memory/target", guest.memory);
    store_put_number(home, "console/port", guest.console_port);
    store_put(home, "console/type", "xenconsoled");
    store_put_number(home, "store/port", guest.store_port);
    store_put(home, "cpu/0/availability", "online");
    store_own(store_joined(home, "device", place), guest.domain, 0);
    store_own(store_joined(home, "data", place), guest.domain, 0);
}

void store_start(void)
{
    tree_clear(&store);
    make_home();
    if (grant_map_page(guest.domain, GNTTAB_RESERVED_XENSTORE, &wire) == NO_GRANT)
        return;
    port = event_bind(guest.domain, guest.store_port);
}

void store_changed(const char *path)
{
    store_changes++;
    watches_fire(path);
}

/* -- replies -- */

static void answer_bytes(const void *content, uint32_t bytes)
{
    reply.header = request.header;
    reply.header.len = bytes;
    memcpy(reply.text, content, bytes);
    reply_bytes = sizeof reply.header + bytes;
}

static void answer(const char *text)    /* the zero behind it is sent too */
{
    answer_bytes(text, text_bytes(text) + 1);
}

static void answer_error(const char *name)
{
    answer(name);
    reply.header.type = XS_ERROR;
}

static void answer_result(enum tree_error error)
{
    static const char *const names[] = {
        [TREE_NOT_FOUND] = "ENOENT", [TREE_NOT_ALLOWED] = "EACCES", [TREE_FULL] = "ENOSPC", [TREE_BAD] = "EINVAL",
    };

    if (error == TREE_OK)
        answer("OK");
    else
        answer_error(names[error]);
}

/* -- transactions -- */

static struct transaction *transaction_of(uint32_t number)
{
    for (unsigned place = 0; place < TRANSACTIONS; place++)
        if (transactions[place].number == number)
            return &transactions[place];
    return 0;
}

static void start_transaction(void)
{
    struct transaction *free = transaction_of(0);
    char place[DECIMAL_BYTES];

    if (request.header.tx_id || !free) {
        answer_error("EBUSY");
        return;
    }
    if (!++last_transaction)
        last_transaction++;
    free->number = last_transaction;
    free->store_changes = store_changes;
    free->changed = 0;
    memcpy(&free->tree, &store, sizeof store);
    answer(decimal(free->number, place));
}

static void end_transaction(struct transaction *transaction)
{
    if (!request.header.tx_id) {
        answer_error("ENOENT");
        return;
    }
    transaction->number = 0;
    if (!same_text(request.text, "T")) {
        answer("OK");
    } else if (transaction->changed && transaction->store_changes != store_changes) {
        answer_error("EAGAIN");
    } else {
        if (transaction->changed) {
            watches_compare(&store, &transaction->tree);
            memcpy(&store, &transaction->tree, sizeof store);
            store_changes++;
        }
        answer("OK");
    }
}

/* -- requests -- */

static void read_value(const struct tree *tree, int node)
{
    answer_bytes(tree->node[node].value, tree->node[node].bytes);
}

static void list_children(const struct tree *tree, int node)
{
    uint32_t bytes = 0;
    static char names[TREE_NODES * NAME_BYTES];

    for (int child = tree->node[node].first_child; child; child = tree->node[child].next) {
        const uint32_t name = text_bytes(tree->node[child].name) + 1;

        memcpy(names + bytes, tree->node[child].name, name);
        bytes += name;
    }
    answer_bytes(names, bytes);
}

static uint32_t permission(char *to, char letter, uint16_t domain)
{
    char place[DECIMAL_BYTES];
    const char *number = decimal(domain, place);
    const uint32_t bytes = text_bytes(number) + 1;

    *to = letter;
    memcpy(to + 1, number, bytes);
    return bytes + 1;
}

static void list_permissions(const struct tree *tree, int node)
{
    char text[4 * DECIMAL_BYTES];
    uint32_t bytes = permission(text, 'n', tree->node[node].owner);

    if (tree->node[node].other_may != 'n')
        bytes += permission(text + bytes, tree->node[node].other_may, tree->node[node].other);
    answer_bytes(text, bytes);
}

static void look(const struct tree *tree, const char *path)
{
    const int node = tree_find(tree, path);

    if (node < 0)
        answer_error("ENOENT");
    else if (!tree_may_read(tree, node, guest.domain))
        answer_error("EACCES");
    else if (request.header.type == XS_READ)
        read_value(tree, node);
    else if (request.header.type == XS_DIRECTORY)
        list_children(tree, node);
    else
        list_permissions(tree, node);
}

/* One of a list of permissions: a letter and a domain's number. 0 if it is none. */
static int read_permission(const char *text, char *letter, uint16_t *domain)
{
    uint32_t number;

    if ((*text != 'n' && *text != 'r' && *text != 'w' && *text != 'b') ||
        !read_decimal(text + 1, text_bytes(text + 1), &number) || number > 0x7FFF)
        return 0;
    *letter = *text;
    *domain = (uint16_t)number;
    return 1;
}

/* Who owns a node cannot give it away; it may say what one other domain may do. */
static enum tree_error set_permissions(struct tree *tree, const char *path)
{
    const int number = tree_find(tree, path);
    const char *first = request.text + text_bytes(request.text) + 1, *end = request.text + request.header.len;
    const char *second = first + (first < end ? text_bytes(first) + 1 : 0);
    struct node *node = &tree->node[number < 0 ? ROOT : number];
    char letter, other_may = 'n';
    uint16_t owner, other = 0;

    if (number < 0)
        return TREE_NOT_FOUND;
    if (node->owner != guest.domain)
        return TREE_NOT_ALLOWED;
    if (first >= end || !read_permission(first, &letter, &owner) || owner != guest.domain)
        return TREE_BAD;
    if (second < end && !read_permission(second, &other_may, &other))
        return TREE_BAD;
    node->other = other;
    node->other_may = other_may;
    return TREE_OK;
}

static enum tree_error change(struct tree *tree, const char *path)
{
    const uint32_t name = text_bytes(request.text) + 1;

    switch (request.header.type) {
    case XS_WRITE:
        if (name > request.header.len)
            return TREE_BAD;
        return tree_write(tree, path, guest.domain, request.text + name, request.header.len - name);
    case XS_MKDIR:
        return tree_make(tree, path, guest.domain);
    case XS_RM:
        return tree_remove(tree, path, guest.domain);
    default:
        return set_permissions(tree, path);
    }
}

static void change_store(struct transaction *transaction, const char *path)
{
    const enum tree_error error = change(transaction ? &transaction->tree : &store, path);

    answer_result(error);
    if (error)
        return;
    if (transaction)
        transaction->changed = 1;
    else
        store_changed(path);
}

static void watch(void)
{
    const char *token = request.text + text_bytes(request.text) + 1;

    if (token >= request.text + request.header.len)
        answer_error("EINVAL");
    else if (request.header.type == XS_UNWATCH)
        answer_result(watch_remove(request.text, token) ? TREE_OK : TREE_NOT_FOUND);
    else
        answer_result(watch_add(request.text, token) ? TREE_OK : TREE_FULL);
}

static void tell_domain_path(void)
{
    char path[PATH_BYTES];
    uint32_t number;

    if (!read_decimal(request.text, text_bytes(request.text), &number)) {
        answer_error("EINVAL");
        return;
    }
    store_home(number, path);
    answer(path);
}

static void perform_with_path(struct transaction *transaction)
{
    char path[PATH_BYTES];

    if (!store_absolute(request.text, path)) {
        answer_error("EINVAL");
        return;
    }
    switch (request.header.type) {
    case XS_READ:
    case XS_DIRECTORY:
    case XS_GET_PERMS:
        look(transaction ? &transaction->tree : &store, path);
        break;
    default:
        change_store(transaction, path);
    }
}

static void perform(void)
{
    struct transaction *transaction = request.header.tx_id ? transaction_of(request.header.tx_id) : 0;

    request.text[request.header.len] = 0;   /* texts end, whatever the guest sent */
    if (request.header.tx_id && !transaction) {
        answer_error("ENOENT");
        return;
    }
    switch (request.header.type) {
    case XS_TRANSACTION_START:
        start_transaction();
        break;
    case XS_TRANSACTION_END:
        end_transaction(transaction);
        break;
    case XS_WATCH:
    case XS_UNWATCH:
        watch();
        break;
    case XS_GET_DOMAIN_PATH:
        tell_domain_path();
        break;
    case XS_READ:
    case XS_DIRECTORY:
    case XS_GET_PERMS:
    case XS_WRITE:
    case XS_MKDIR:
    case XS_RM:
    case XS_SET_PERMS:
        perform_with_path(transaction);
        break;
    default:
        answer_error("ENOSYS");
    }
}

/* -- the ring -- */

/* Take bytes of a request up to `wanted` of them in all; whether there are so many. */
static int take(struct xenstore_domain_interface *ring, uint32_t wanted)
{
    uint32_t next = ring->req_cons;
    const uint32_t end = *(volatile uint32_t *)&ring->req_prod;

    if (end - next > XENSTORE_RING_SIZE) {
        deaf = 1;
        return 0;
    }
    compiler_barrier();
    while (request_bytes < wanted && next != end)
        request.octets[request_bytes++] = (uint8_t)ring->req[next++ % XENSTORE_RING_SIZE];
    compiler_barrier();
    ring->req_cons = next;
    return request_bytes == wanted;
}

static int take_request(struct xenstore_domain_interface *ring)
{
    if (request_bytes < sizeof request.header && !take(ring, sizeof request.header))
        return 0;
    if (request.header.len > XENSTORE_PAYLOAD_MAX) {
        deaf = 1;
        return 0;
    }
    return request_bytes == sizeof request.header + request.header.len
        || take(ring, sizeof request.header + request.header.len);
}

/* Send what there is room for; whether the whole reply has left. */
static int send_reply(struct xenstore_domain_interface *ring)
{
    uint32_t next = ring->rsp_prod;

    while (reply_sent < reply_bytes && next - *(volatile uint32_t *)&ring->rsp_cons < XENSTORE_RING_SIZE)
        ring->rsp[next++ % XENSTORE_RING_SIZE] = (char)reply.octets[reply_sent++];
    compiler_barrier();
    ring->rsp_prod = next;
    if (reply_sent < reply_bytes)
        return 0;
    reply_sent = reply_bytes = 0;
    return 1;
}

/* The next watch event, if there is one, as a message to be sent. */
static int take_watch_event(void)
{
    const uint32_t bytes = watch_event_take(reply.text);

    if (!bytes)
        return 0;
    reply.header = (struct xsd_sockmsg){.type = XS_WATCH_EVENT, .len = bytes};
    reply_bytes = sizeof reply.header + bytes;
    return 1;
}

void store_serve(void)
{
    struct xenstore_domain_interface *ring = &wire.ring;
    int moved = 0;

    if (port < 0 || !(event_taken((uint32_t)port) | watch_event_waits()) || deaf)
        return;
    while (send_reply(ring)) {
        if (take_watch_event()) {
            moved = 1;
        } else if (take_request(ring)) {
            perform();
            request_bytes = 0;
            moved = 1;
        } else {
            break;
        }
    }
    moved |= request_bytes != 0 || reply_bytes != 0;
    if (moved)
        event_send((uint32_t)port);
}
