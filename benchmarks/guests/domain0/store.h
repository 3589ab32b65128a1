/* The store as domain 0 itself uses it. Every change outside of a transaction is told to the watches. */
#ifndef STORE_H
#define STORE_H

#include "tree.h"

extern struct tree store;

/* How often the store has changed. */
extern uint32_t store_changes;

void store_changed(const char *path);

/* Where a domain's own part is: "/local/domain/N". Returns its bytes. */
uint32_t store_home(uint32_t domain, char path[PATH_BYTES]);

/* What the guest calls a path, made absolute: one without a slash begins at the guest's own part. 0: it is no path. */
int store_absolute(const char *said, char path[PATH_BYTES]);

/* A path of two parts. */
const char *store_joined(const char *folder, const char *name, char path[PATH_BYTES]);

/* Values that domain 0 writes. */
void store_put(const char *folder, const char *name, const char *value);
void store_put_number(const char *folder, const char *name, uint32_t value);

/* Give a node, and what is made below it later, to a domain; another one may read it. */
void store_own(const char *path, uint16_t owner, uint16_t reader);

/* A number that stands in the store; `otherwise` if there is none. */
uint32_t store_number(const char *folder, const char *name, uint32_t otherwise);

#endif
