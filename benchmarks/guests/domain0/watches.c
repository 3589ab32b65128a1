/* Watches. */
#include "watches.h"

#include "../xen/text.h"
#include "store.h"

#define WATCHES 16
#define TOKEN_BYTES 64
#define EVENTS 32

struct watch {
    int used;
    char said[PATH_BYTES], path[PATH_BYTES];    /* as the guest said it, and in full */
    char token[TOKEN_BYTES];
};
static struct watch watches[WATCHES];

/* Events that wait, as a ring: the watch, and what stands behind its own path. */
static struct {
    const struct watch *watch;
    char rest[PATH_BYTES];
} events[EVENTS];
static uint32_t first_event, next_event;

static void add_event(const struct watch *watch, const char *rest)
{
    for (uint32_t number = first_event; number != next_event; number++)
        if (events[number % EVENTS].watch == watch && same_text(events[number % EVENTS].rest, rest))
            return;             /* who has not read of one change yet need not read of two */
    if (next_event - first_event == EVENTS)
        return;                 /* a guest that does not read its events */
    events[next_event % EVENTS].watch = watch;
    memcpy(events[next_event++ % EVENTS].rest, rest, text_bytes(rest) + 1);
}

static struct watch *find(const char *said, const char *token)
{
    for (unsigned number = 0; number < WATCHES; number++)
        if (watches[number].used && same_text(watches[number].said, said) && same_text(watches[number].token, token))
            return &watches[number];
    return 0;
}

int watch_add(const char *path, const char *token)
{
    struct watch *watch = watches;

    while (watch < watches + WATCHES && watch->used)
        watch++;
    if (watch == watches + WATCHES || find(path, token) || text_bytes(token) >= TOKEN_BYTES ||
        !store_absolute(path, watch->path))
        return 0;
    watch->used = 1;
    memcpy(watch->said, path, text_bytes(path) + 1);
    memcpy(watch->token, token, text_bytes(token) + 1);
    add_event(watch, "");       /* a new watch is told of at once */
    return 1;
}

int watch_remove(const char *path, const char *token)
{
    struct watch *watch = find(path, token);
    uint32_t kept = first_event;

    if (!watch)
        return 0;
    watch->used = 0;
    for (uint32_t number = first_event; number != next_event; number++)
        if (events[number % EVENTS].watch != watch) {
            if (kept != number)
                memcpy(&events[kept % EVENTS], &events[number % EVENTS], sizeof events[0]);
            kept++;
        }
    next_event = kept;
    return 1;
}

/* What stands in `path` behind the path `above`; 0 if it is not below it. */
static const char *below(const char *path, const char *above)
{
    if (!above[1])
        return path;            /* the root */
    while (*above)
        if (*path++ != *above++)
            return 0;
    return !*path || *path == '/' ? path : 0;
}

void watches_fire(const char *path)
{
    for (unsigned number = 0; number < WATCHES; number++) {
        const struct watch *watch = &watches[number];
        const char *rest;

        if (!watch->used)
            continue;
        rest = below(path, watch->path);
        if (rest)
            add_event(watch, rest);
        else if (below(watch->path, path) && tree_find(&store, watch->path) < 0)
            add_event(watch, "");   /* it was removed with what was above it */
    }
}

static int is_same(const struct node *one, const struct node *two)
{
    if (one->bytes != two->bytes)
        return 0;
    for (unsigned place = 0; place < one->bytes; place++)
        if (one->value[place] != two->value[place])
            return 0;
    return 1;
}

/* Fire for the nodes of one tree that the other has not, or not the same. */
static void fire_differences(const struct tree *tree, const struct tree *other, int values)
{
    char path[PATH_BYTES];

    for (int number = 1; number < TREE_NODES; number++)
        if (tree->node[number].used) {
            int twin;

            tree_path(tree, number, path);
            twin = tree_find(other, path);
            if (twin < 0 || (values && !is_same(&tree->node[number], &other->node[twin])))
                watches_fire(path);
        }
}

void watches_compare(const struct tree *before, const struct tree *after)
{
    fire_differences(after, before, 1);
    fire_differences(before, after, 0);
}

int watch_event_waits(void)
{
    return first_event != next_event;
}

uint32_t watch_event_take(char *text)
{
    const struct watch *watch = events[first_event % EVENTS].watch;
    const char *rest = events[first_event % EVENTS].rest;
    uint32_t bytes;

    if (!watch_event_waits())
        return 0;
    bytes = text_bytes(watch->said);
    memcpy(text, watch->said, bytes);
    memcpy(text + bytes, rest, text_bytes(rest) + 1);
    bytes += text_bytes(rest) + 1;
    memcpy(text + bytes, watch->token, text_bytes(watch->token) + 1);
    first_event++;
    return bytes + text_bytes(watch->token) + 1;
}
