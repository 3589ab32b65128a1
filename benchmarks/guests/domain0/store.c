/* The store for domain 0 itself. */
#include "store.h"

#include "../xen/text.h"
#include "domain.h"

struct tree store;
uint32_t store_changes;

uint32_t store_home(uint32_t domain, char path[PATH_BYTES])
{
    static const char homes[] = "/local/domain/";
    char place[DECIMAL_BYTES];
    const char *number = decimal(domain, place);
    const uint32_t bytes = text_bytes(number);

    memcpy(path, homes, sizeof homes - 1);
    memcpy(path + sizeof homes - 1, number, bytes + 1);
    return sizeof homes - 1 + bytes;
}

int store_absolute(const char *said, char path[PATH_BYTES])
{
    uint32_t length = 0;

    if (*said != '/') {
        length = store_home(guest.domain, path);
        path[length++] = '/';
    }
    if (text_bytes(said) >= PATH_BYTES - length)
        return 0;
    memcpy(path + length, said, text_bytes(said) + 1);
    return tree_is_path(path);
}

const char *store_joined(const char *folder, const char *name, char path[PATH_BYTES])
{
    const size_t bytes = text_bytes(folder);

    memcpy(path, folder, bytes);
    path[bytes] = '/';
    memcpy(path + bytes + 1, name, text_bytes(name) + 1);
    return path;
}

void store_put(const char *folder, const char *name, const char *value)
{
    char place[PATH_BYTES];
    const char *path = store_joined(folder, name, place);

    tree_write(&store, path, 0, value, text_bytes(value));
    store_changed(path);
}

void store_put_number(const char *folder, const char *name, uint32_t value)
{
    char place[DECIMAL_BYTES];

    store_put(folder, name, decimal(value, place));
}

void store_own(const char *path, uint16_t owner, uint16_t reader)
{
    struct node *node;

    tree_make(&store, path, 0);
    node = &store.node[tree_find(&store, path)];
    node->owner = owner;
    node->other = reader;
    node->other_may = 'r';
}

uint32_t store_number(const char *folder, const char *name, uint32_t otherwise)
{
    char place[PATH_BYTES];
    const int node = tree_find(&store, store_joined(folder, name, place));
    uint32_t value;

    if (node < 0 || !read_decimal((const char *)store.node[node].value, store.node[node].bytes, &value))
        return otherwise;
    return value;
}
