/* The tree. Nodes stand in an array and name each other by number, so that a copy of the array is a copy of the tree. */
#include "tree.h"

#include "../xen/text.h"

#define DOMAIN_0 0

void tree_clear(struct tree *tree)
{
    memset(tree, 0, sizeof *tree);
    tree->node[ROOT].used = 1;
    tree->node[ROOT].other_may = 'n';
}

static int may_stand_in_name(char letter)
{
    return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') || (letter >= '0' && letter <= '9')
        || letter == '-' || letter == '_' || letter == '@' || letter == ':' || letter == '.' || letter == '+';
}

/* Bytes of the step that a path has here: up to the next slash or the end. */
static uint32_t step_bytes(const char *step)
{
    uint32_t bytes = 0;

    while (step[bytes] && step[bytes] != '/')
        bytes++;
    return bytes;
}

int tree_is_path(const char *path)
{
    if (*path != '/' || text_bytes(path) >= PATH_BYTES)
        return 0;
    if (!path[1])
        return 1;
    while (*path) {
        const uint32_t bytes = step_bytes(++path);

        if (!bytes || bytes >= NAME_BYTES)
            return 0;
        for (const char *end = path + bytes; path < end; path++)
            if (!may_stand_in_name(*path))
                return 0;
    }
    return 1;
}

static int is_named(const struct node *node, const char *step, uint32_t bytes)
{
    for (uint32_t place = 0; place < bytes; place++)
        if (node->name[place] != step[place])
            return 0;
    return !node->name[bytes];
}

/* Follow a path as far as there are nodes; `rest` is what is left of it, its slash included. */
static int follow(const struct tree *tree, const char *path, const char **rest)
{
    int node = ROOT;

    for (*rest = path[1] ? path : path + 1; **rest;) {
        const char *step = *rest + 1;
        const uint32_t bytes = step_bytes(step);
        int child = tree->node[node].first_child;

        while (child && !is_named(&tree->node[child], step, bytes))
            child = tree->node[child].next;
        if (!child)
            break;
        node = child;
        *rest = step + bytes;
    }
    return node;
}

int tree_find(const struct tree *tree, const char *path)
{
    const char *rest;
    const int node = follow(tree, path, &rest);

    return *rest ? -1 : node;
}

void tree_path(const struct tree *tree, int node, char path[PATH_BYTES])
{
    uint32_t length = 0;

    for (int above = node; above != ROOT; above = tree->node[above].parent)
        length += 1 + text_bytes(tree->node[above].name);
    path[length] = 0;
    for (; node != ROOT; node = tree->node[node].parent) {
        const uint32_t bytes = text_bytes(tree->node[node].name);

        length -= bytes;
        memcpy(path + length, tree->node[node].name, bytes);
        path[--length] = '/';
    }
}

static int may(const struct node *node, uint16_t domain, char what)
{
    if (domain == DOMAIN_0 || domain == node->owner)
        return 1;
    return domain == node->other && (node->other_may == what || node->other_may == 'b');
}

int tree_may_read(const struct tree *tree, int node, uint16_t domain)
{
    return may(&tree->node[node], domain, 'r');
}

int tree_may_write(const struct tree *tree, int node, uint16_t domain)
{
    return may(&tree->node[node], domain, 'w');
}

static int free_node(const struct tree *tree)
{
    for (int number = 1; number < TREE_NODES; number++)
        if (!tree->node[number].used)
            return number;
    return -1;
}

static int add_child(struct tree *tree, int parent, const char *step, uint32_t bytes)
{
    const int number = free_node(tree);
    struct node *above = &tree->node[parent], *node;
    uint8_t *end = &above->first_child;

    if (number < 0)
        return -1;
    node = &tree->node[number];
    memset(node, 0, sizeof *node);
    node->used = 1;
    node->parent = (uint8_t)parent;
    node->owner = above->owner;
    node->other = above->other;
    node->other_may = above->other_may;
    memcpy(node->name, step, bytes);
    while (*end)                /* the youngest comes last */
        end = &tree->node[*end].next;
    *end = (uint8_t)number;
    return number;
}

static uint32_t steps_of(const char *rest)
{
    uint32_t steps = 0;

    for (; *rest; rest++)
        steps += *rest == '/';
    return steps;
}

static uint32_t free_nodes(const struct tree *tree)
{
    uint32_t count = 0;

    for (int number = 1; number < TREE_NODES; number++)
        count += !tree->node[number].used;
    return count;
}

/* The node at a path, made if it is missing; negative is a tree_error. */
static int make(struct tree *tree, const char *path, uint16_t domain)
{
    const char *rest;
    int node = follow(tree, path, &rest);

    if (!tree_may_write(tree, node, domain))
        return -TREE_NOT_ALLOWED;
    if (steps_of(rest) > free_nodes(tree))
        return -TREE_FULL;
    while (*rest) {
        const char *step = rest + 1;
        const uint32_t bytes = step_bytes(step);

        node = add_child(tree, node, step, bytes);
        rest = step + bytes;
    }
    return node;
}

enum tree_error tree_make(struct tree *tree, const char *path, uint16_t domain)
{
    const int node = make(tree, path, domain);

    return node < 0 ? (enum tree_error)-node : TREE_OK;
}

enum tree_error tree_write(struct tree *tree, const char *path, uint16_t domain, const void *value, uint32_t bytes)
{
    int node;

    if (bytes > VALUE_BYTES)
        return TREE_FULL;
    node = make(tree, path, domain);
    if (node < 0)
        return (enum tree_error)-node;
    tree->node[node].bytes = (uint8_t)bytes;
    memcpy(tree->node[node].value, value, bytes);
    return TREE_OK;
}

/* Take a node out of its parent's list. */
static void unlink(struct tree *tree, int number)
{
    uint8_t *link = &tree->node[tree->node[number].parent].first_child;

    while (*link != number)
        link = &tree->node[*link].next;
    *link = tree->node[number].next;
}

enum tree_error tree_remove(struct tree *tree, const char *path, uint16_t domain)
{
    const int top = tree_find(tree, path);
    int node = top;

    if (top < 0)
        return TREE_NOT_FOUND;
    if (top == ROOT)
        return TREE_BAD;
    if (!tree_may_write(tree, tree->node[top].parent, domain))
        return TREE_NOT_ALLOWED;
    for (;;) {                  /* always the deepest first child: it has none of its own */
        while (tree->node[node].first_child)
            node = tree->node[node].first_child;
        const int parent = tree->node[node].parent;

        unlink(tree, node);
        tree->node[node].used = 0;
        if (node == top)
            return TREE_OK;
        node = parent;
    }
}
