/* Copy, fill and compare. */
#ifndef BYTES_H
#define BYTES_H

#include <stddef.h>
#include <stdint.h>

/* The compiler asks for these two by name when it copies or clears a structure. */
void *memcpy(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);

void copy_page(void *to, const void *from);
void clear_page(void *page);
int same_text(const char *one, const char *two);
size_t text_bytes(const char *text); /* the final zero not counted */

#endif
