/* What xenstore holds: a tree of names with values, and who may see and change each. */
#ifndef TREE_H
#define TREE_H

#include <stdint.h>

#define TREE_NODES 128
#define NAME_BYTES 32           /* of one step of a path, with the zero behind it */
#define VALUE_BYTES 128
#define PATH_BYTES 256
#define ROOT 0

struct node {
    uint8_t used, bytes;        /* of the value */
    uint8_t parent, first_child, next;  /* numbers of nodes; 0 in the last two: none */
    uint16_t owner;             /* the domain that may do anything here */
    uint16_t other;             /* one more domain, */
    char other_may;             /* 'r', 'w', 'b' (both), or 'n' (nothing, as for everyone else) */
    char name[NAME_BYTES];
    uint8_t value[VALUE_BYTES];
};

struct tree {
    struct node node[TREE_NODES];
};

enum tree_error { TREE_OK, TREE_NOT_FOUND, TREE_NOT_ALLOWED, TREE_FULL, TREE_BAD };

void tree_clear(struct tree *tree);

/* The node at a path "/a/b", or -1. */
int tree_find(const struct tree *tree, const char *path);

/* The path of a node. */
void tree_path(const struct tree *tree, int node, char path[PATH_BYTES]);

/* A path is one if it begins with a slash and has steps of letters, digits and a few marks that are not too long. */
int tree_is_path(const char *path);

int tree_may_read(const struct tree *tree, int node, uint16_t domain);
int tree_may_write(const struct tree *tree, int node, uint16_t domain);

/* Set a value for a domain, with the nodes above it that are missing; they belong to who owns the nearest that is there. */
enum tree_error tree_write(struct tree *tree, const char *path, uint16_t domain, const void *value, uint32_t bytes);

/* Make a node without a value, if there is none. */
enum tree_error tree_make(struct tree *tree, const char *path, uint16_t domain);

/* Remove a node and everything below it. */
enum tree_error tree_remove(struct tree *tree, const char *path, uint16_t domain);

#endif
