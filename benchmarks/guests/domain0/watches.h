/* What the guest watches in the store, and the events that wait to be told. */
#ifndef WATCHES_H
#define WATCHES_H

#include "tree.h"

/* `path` as the guest said it, which need not be absolute, and its own mark. 0: there is no room, or no such watch. */
int watch_add(const char *path, const char *token);
int watch_remove(const char *path, const char *token);

/* A node has changed, or everything below it is gone: tell who watches it or something above or below. */
void watches_fire(const char *path);

/* One tree is about to take the place of another. */
void watches_compare(const struct tree *before, const struct tree *after);

/* The next event as "path", zero, "token", zero; its bytes, 0 if none waits. */
uint32_t watch_event_take(char *text);
int watch_event_waits(void);

#endif
